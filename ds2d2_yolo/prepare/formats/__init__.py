"""The formats that `data prepare` reads: DOTA, VOC-like and YOLO."""
