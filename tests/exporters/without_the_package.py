"""Runs an exported form where nothing of ours can be imported: KIND FORM PICTURES.npz FOUND.npz BLOCKED,MODULES."""

import importlib.util
import os
import sys

import numpy as np

kind, form, pictures, found, blocked = sys.argv[1:]


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked.split(","):
            raise ImportError(f"{name} is kept out")


sys.meta_path.insert(0, Blocker())
with np.load(pictures) as arrays:
    pictures = [arrays[name] for name in sorted(arrays.files)]
answers = {}
if kind == "saved_model":
    import tensorflow as tf

    loaded = tf.saved_model.load(form)
    files = [tf.io.encode_png(picture) for picture in pictures]
    for number, picture in enumerate(pictures):
        answers[f"images_{number}"] = loaded.signatures["serving_default"](images=tf.constant(picture[None]))
    together = loaded.signatures["encoded_pasted"](image_bytes=tf.stack(files))
    for number in range(len(pictures)):
        answers[f"encoded_{number}"] = {name: part[number : number + 1] for name, part in together.items()}
    answers["about"] = loaded.signatures["about"]()
    with open(loaded.about_file.asset_path.numpy()) as file:
        answers["asset"] = {"about": file.read()}
    answers = {name: {key: value.numpy() if hasattr(value, "numpy") else value for key, value in answer.items()}
               for name, answer in answers.items()}  # fmt: skip
else:
    spec = importlib.util.spec_from_file_location("run", os.path.join(form, "run.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for number, answer in enumerate(module.Detector(form)(pictures)):
        answers[f"images_{number}"] = answer
np.savez(found, **{f"{name}/{key}": value for name, answer in answers.items() for key, value in answer.items()})
