"""What an exported form is run by: copied beside it as text, and importing nothing of ours there."""
