"""From what a data set looks like, and the machine and the minutes that there are, to the settings of a training."""
