"""The labelled set as each annotation tool writes it: what `labelled_set` holds, in the files of seven tools."""

import csv
import io
import json
import pathlib

import numpy as np
import PIL.Image
from reference import labelled_set
from reference.labelled_set import SET, base64_png, box_of, drawn, is_box, pairs, save, window, write_pictures

# ---- VIA


def _via2_shape(shape):
    if is_box(shape):
        x1, y1, x2, y2 = shape
        return {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
    return {"name": "polygon", "all_points_x": list(shape[::2]), "all_points_y": list(shape[1::2])}


def _via2_images():
    return {
        f"{name}{width}": {
            "filename": name,
            "size": width,
            "regions": [
                {"shape_attributes": _via2_shape(shape), "region_attributes": {"kind": label}}
                for label, shape in shapes
            ],
            "file_attributes": {},
        }
        for name, width, _, shapes in SET
    }


def write_via2_project(folder):
    write_pictures(folder)
    options = {name: name for name in labelled_set.CLASSES}
    return save(
        folder / "via_project.json",
        {
            "_via_settings": {"ui": {}, "core": {"default_filepath": ""}, "project": {"name": "set"}},
            "_via_img_metadata": _via2_images(),
            "_via_attributes": {
                "region": {"kind": {"type": "dropdown", "options": options, "default_options": {}}},
                "file": {},
            },
            "_via_data_format_version": "2.0.10",
            "_via_image_id_list": list(_via2_images()),
        },
        bom=True,
    )


def write_via2_json(folder):
    write_pictures(folder)
    return save(folder / "via_region_data.json", _via2_images())


def write_via2_csv(folder):
    write_pictures(folder)
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    file.write("filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n")
    for name, width, _, shapes in SET:
        for number, (label, shape) in enumerate(shapes):
            texts = json.dumps(_via2_shape(shape)), json.dumps({"kind": label})
            rows.writerow([name, width, "{}", len(shapes), number, *texts])
        if not shapes:
            rows.writerow([name, width, "{}", 0, 0, "{}", "{}"])
    return save(folder / "via_export.csv", file.getvalue(), bom=True)


def _via3_xy(shape):
    if is_box(shape):
        x1, y1, x2, y2 = shape
        return [2, x1, y1, x2 - x1, y2 - y1]
    return [7, *shape]


def write_via3_project(folder):
    write_pictures(folder)
    views = {str(at): name for at, (name, *_) in enumerate(SET, 1)}
    metadata = {}
    for view, (_, _, _, shapes) in zip(views, SET):
        for number, (label, shape) in enumerate(shapes):
            av = {"1": str(labelled_set.CLASSES.index(label))}
            metadata[f"{view}_{number}"] = {"vid": view, "flg": 0, "z": [], "xy": _via3_xy(shape), "av": av}
    options = {str(at): name for at, name in enumerate(labelled_set.CLASSES)}
    return save(
        folder / "via3.json",
        {
            "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1", "vid_list": list(views)},
            "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}, "ui": {}},
            "attribute": {"1": {"aname": "kind", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": options}},
            "file": {
                view: {"fid": view, "fname": name, "type": 2, "loc": 1, "src": ""} for view, name in views.items()
            },
            "metadata": metadata,
            "view": {view: {"fid_list": [view]} for view in views},
        },
    )


def write_via3_csv(folder):
    """What VIA 3 exports of an attribute of free text; it says nothing of a picture without regions."""
    write_pictures(folder)
    file = io.StringIO()
    file.write("# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)\n")
    file.write('# SHAPE_ID = {"POINT":1,"RECTANGLE":2}\n# ATTRIBUTES = {"1":"kind","2":"other"}\n')
    file.write("# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n")
    for name, _, _, shapes in SET:
        for number, (label, shape) in enumerate(shapes):
            texts = [json.dumps(value).replace('"', '""') for value in ([name], [], _via3_xy(shape), {"1": label})]
            file.write(f'"1_{number}","{texts[0]}",0,"{texts[1]}","{texts[2]}","{texts[3]}"\n')
    return save(folder / "via3_export.csv", file.getvalue())


# ---- labelme


def write_labelme(folder, pixels=False):
    write_pictures(folder / "pictures")
    for name, width, height, shapes in SET:
        found = []
        for label, shape in shapes:
            entry = {"label": label, "group_id": None, "flags": {}, "shape_type": "polygon", "points": pairs(shape)}
            if is_box(shape):
                entry["shape_type"] = "rectangle"
                entry["points"].reverse()
            elif pixels:
                mask = drawn(shape, width, height)
                x1, y1, x2, y2 = window(mask)
                crop = base64_png(mask[y1:y2, x1:x2])
                entry |= {"shape_type": "mask", "points": [[x1, y1], [x2 - 1, y2 - 1]], "mask": crop}
            found.append(entry)
        path = f"..\\pictures\\{name}"
        content = {"version": "5.4.1", "flags": {}, "shapes": found, "imagePath": path, "imageData": None}
        save(folder / "labels" / f"{name[:-4]}.json", content | {"imageHeight": height, "imageWidth": width})
    return str(folder / "labels")


# ---- CVAT


def write_cvat(folder, pixels=False):
    write_pictures(folder / "images")
    labels = "".join(
        f"<label><name>{name}</name><type>any</type><attributes/></label>" for name in labelled_set.CLASSES
    )
    text = "<?xml version='1.0' encoding='utf-8'?>\n<annotations><version>1.1</version><meta><task><id>7</id>"
    text += f"<labels>{labels}</labels></task></meta>"
    for at, (name, width, height, shapes) in enumerate(SET):
        text += f'<image id="{at}" name="{name}" width="{width}" height="{height}">\n'
        for label, shape in shapes:
            shared = f'label="{label}" source="manual" occluded="1" z_order="0"'
            if is_box(shape):
                text += '<box {} xtl="{}" ytl="{}" xbr="{}" ybr="{}"></box>'.format(shared, *shape)
            elif pixels:
                mask = drawn(shape, width, height)
                x1, y1, x2, y2 = window(mask)
                runs, last = [0], False
                for pixel in mask[y1:y2, x1:x2].reshape(-1):
                    runs += [0] * int(pixel != last)
                    runs[-1] += 1
                    last = pixel
                rle = ", ".join(map(str, runs))
                text += (
                    f'<mask {shared} rle="{rle}" left="{x1}" top="{y1}" width="{x2 - x1}" height="{y2 - y1}"></mask>'
                )
            else:
                text += f'<polygon {shared} points="{";".join(f"{x},{y}" for x, y in pairs(shape))}"></polygon>'
        text += "</image>\n"
    save(folder / "annotations.xml", text + "</annotations>")
    return str(folder)


# ---- Pascal VOC


def write_voc(folder):
    """Boxes counted from 1 to the last pixel, and palette indices for pictures of polygons."""
    write_pictures(folder / "JPEGImages")
    palette = np.random.default_rng(0).integers(0, 256, 768).tolist()
    for name, width, height, shapes in SET:
        text = f"<annotation><folder>VOC2012</folder><filename>{name}</filename>"
        text += f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        indices = np.zeros((height, width), np.uint8)
        indices[-1, -1] = 255  # the border
        for number, (label, shape) in enumerate(shapes, 1):
            x1, y1, x2, y2 = box_of(shape)
            text += f"<object><name>{label}</name><difficult>1</difficult><part><name>head</name></part>"
            text += f"<bndbox><xmax>{x2}</xmax><xmin>{x1 + 1}</xmin>"
            text += f"<ymax>{y2}</ymax><ymin>{y1 + 1}</ymin></bndbox></object>"
            if not is_box(shape):
                indices[drawn(shape, width, height)] = number
        save(folder / "Annotations" / f"{name[:-4]}.xml", text + "</annotation>")
        if any(not is_box(shape) for _, shape in shapes):
            picture = PIL.Image.fromarray(indices)
            picture = PIL.Image.frombytes("P", picture.size, picture.tobytes())
            picture.putpalette(palette)
            (folder / "SegmentationObject").mkdir(exist_ok=True)
            picture.save(folder / "SegmentationObject" / name)
    return str(folder)


# ---- YOLO


def write_yolo(folder):
    write_pictures(folder / "train" / "images")
    for name, width, height, shapes in SET:
        lines = []
        for label, shape in shapes:
            if is_box(shape):
                x1, y1, x2, y2 = shape
                shares = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            else:
                shares = [value / (height if at % 2 else width) for at, value in enumerate(shape)]
            lines.append(" ".join(map(str, [labelled_set.CLASSES.index(label), *shares])))
        if lines:
            save(folder / "train" / "labels" / f"{name[:-4]}.txt", "\r\n".join(lines))
    names = "\n".join(f"  {number}: {name}" for number, name in enumerate(labelled_set.CLASSES))
    return save(folder / "data.yaml", f"path: .\ntrain: ../train/images\nval: valid/images\nnc: 3\nnames:\n{names}\n")


# ---- Supervisely


def write_supervisely(folder, pixels=False):
    write_pictures(folder / "set" / "img")
    classes = [{"title": name, "shape": "any", "color": "#FF0000"} for name in labelled_set.CLASSES]
    save(folder / "meta.json", {"classes": classes, "tags": [], "projectType": "images"})
    for name, width, height, shapes in SET:
        objects = []
        for number, (label, shape) in enumerate(shapes):
            entry = {"id": number, "classTitle": label, "tags": [], "geometryType": "polygon"}
            if is_box(shape):
                x1, y1, x2, y2 = shape
                points = {"exterior": [[x1, y1], [x2 - 1, y2 - 1]], "interior": []}
                entry |= {"geometryType": "rectangle", "points": points}
            elif pixels:
                mask = drawn(shape, width, height)
                x1, y1, x2, y2 = window(mask)
                data = base64_png(mask[y1:y2, x1:x2], compress=True)
                entry |= {"geometryType": "bitmap", "bitmap": {"data": data, "origin": [x1, y1]}}
            else:
                entry |= {"points": {"exterior": pairs(shape), "interior": []}}
            objects.append(entry)
        content = {"description": "", "tags": [], "size": {"height": height, "width": width}, "objects": objects}
        save(folder / "set" / "ann" / f"{name}.json", content)
    return str(folder)


# ---- Label Studio


def brush_runs(mask):
    """A mask as Label Studio's brush writes it: bytes of RGBA, here in runs of up to 256 values."""
    flat = np.repeat(mask.reshape(-1), 4).astype(np.uint8) * 255
    bits = f"{flat.size:032b}{7:05b}{2:04b}{3:04b}{5:04b}{7:04b}"
    at = 0
    while at < flat.size:
        run = 1
        while at + run < flat.size and run < 256 and flat[at + run] == flat[at]:
            run += 1
        if run == 4 and at % 8 == 0:  # lists of values as well
            bits += "0" + "00" + f"{run - 1:03b}" + "".join(f"{value:08b}" for value in flat[at : at + run])
        else:
            bits += "1" + "11" + f"{run - 1:08b}" + f"{flat[at]:08b}"
        at += run
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def write_labelstudio(folder, pixels=False, short=False):
    write_pictures(folder)
    tasks = []
    for number, (name, width, height, shapes) in enumerate(SET, 1):
        results = []
        for at, (label, shape) in enumerate(shapes):
            kind, value = "polygonlabels", {"points": [[x / width * 100, y / height * 100] for x, y in pairs(shape)]}
            if is_box(shape):
                x1, y1, x2, y2 = shape
                kind = "rectanglelabels"
                value = {"x": x1 / width * 100, "y": y1 / height * 100, "rotation": 0}
                value |= {"width": (x2 - x1) / width * 100, "height": (y2 - y1) / height * 100}
            elif pixels:
                kind, value = "brushlabels", {"format": "rle", "rle": brush_runs(drawn(shape, width, height))}
            size = {"original_width": width, "original_height": height}
            entry = {"id": f"r{at}", "type": kind, "from_name": "label", "to_name": "image", "image_rotation": 0}
            value[kind] = [label]
            results.append(value | size if short else entry | size | {"value": value})
        picture = f"/data/upload/1/0123abcd-{name}"
        if short:
            tasks.append(
                {
                    "image": picture,
                    "id": number,
                    "label": results,
                    "annotator": 1,
                    "annotation_id": number,
                    "lead_time": 3.5,
                }
            )
        else:
            annotation = {"id": number, "was_cancelled": False, "result": results, "updated_at": "2024-01-01T00:00:00Z"}
            tasks.append({"id": number, "annotations": [annotation], "predictions": [], "data": {"image": picture}})
    return save(folder / "export.json", tasks)


# name -> (writer, source that reads it): of outlines; and of pixels
OUTLINES = {
    "via2 project": (write_via2_project, "via"),
    "via2 json": (write_via2_json, "via"),
    "via2 csv": (write_via2_csv, "via"),
    "via3 project": (write_via3_project, "via"),
    "via3 csv": (write_via3_csv, "via"),
    "labelme": (write_labelme, "labelme"),
    "cvat": (write_cvat, "cvat"),
    "voc": (write_voc, "voc"),
    "yolo": (write_yolo, "yolo"),
    "supervisely": (write_supervisely, "supervisely"),
    "labelstudio": (write_labelstudio, "labelstudio"),
    "labelstudio min": (lambda folder: write_labelstudio(folder, short=True), "labelstudio"),
}
PIXELS = {
    "labelme": (lambda folder: write_labelme(folder, pixels=True), "labelme"),
    "cvat": (lambda folder: write_cvat(folder, pixels=True), "cvat"),
    "supervisely": (lambda folder: write_supervisely(folder, pixels=True), "supervisely"),
    "labelstudio": (lambda folder: write_labelstudio(folder, pixels=True), "labelstudio"),
}


def written(name, folder, pixels=False):
    """Write the set in a format; return (path for --annotations, name of the source)."""
    writer, source = (PIXELS if pixels else OUTLINES)[name]
    return writer(pathlib.Path(folder)), source
