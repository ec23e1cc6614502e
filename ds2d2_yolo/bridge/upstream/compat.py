"""Start-up check of the Ultralytics internals that the bridge uses, so that none fails inside a run."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import version as installed_version

from ds2d2_yolo.errors import DS2D2Error

MINIMUM = (8, 4, 190)

# module, dotted name in it, parameters that the bridge passes by name or position
INTERNALS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # training
    ("ultralytics", "YOLO", ("model", "task")),
    ("ultralytics.engine.trainer", "BaseTrainer.train", ()),
    ("ultralytics.engine.trainer", "BaseTrainer.add_callback", ("event", "callback")),
    ("ultralytics.engine.trainer", "BaseTrainer.check_resume", ("overrides",)),
    ("ultralytics.engine.trainer", "BaseTrainer.setup_model", ()),
    ("ultralytics.engine.trainer", "BaseTrainer._setup_train", ()),
    ("ultralytics.engine.trainer", "BaseTrainer.optimizer_step", ()),
    ("ultralytics.engine.trainer", "BaseTrainer.build_optimizer", ("model",)),
    ("ultralytics.engine.trainer", "BaseTrainer.final_eval", ()),
    ("ultralytics.engine.trainer", "BaseTrainer.save_model", ()),
    ("ultralytics.engine.trainer", "BaseTrainer.get_dataset", ()),
    ("ultralytics.models.yolo.detect", "DetectionTrainer.set_model_attributes", ()),
    ("ultralytics.models.yolo.detect", "DetectionTrainer.get_validator", ()),
    ("ultralytics.models.yolo.detect", "DetectionTrainer.get_model", ("cfg", "weights", "verbose")),
    ("ultralytics.models.yolo.obb", "OBBTrainer.get_model", ("cfg", "weights", "verbose")),
    ("ultralytics.nn.tasks", "OBBModel", ("cfg", "ch", "nc", "verbose")),
    ("ultralytics.nn.tasks", "load_checkpoint", ("weight",)),
    ("ultralytics.nn.tasks", "torch_safe_load", ("weight",)),
    ("ultralytics.nn.tasks", "DetectionModel.init_criterion", ()),
    ("ultralytics.nn.tasks", "BaseModel.fuse", ("verbose",)),
    ("ultralytics.nn.modules.conv", "Conv", ()),
    ("ultralytics.nn.modules.head", "Detect.forward_head", ("x", "box_head", "cls_head")),
    ("ultralytics.nn.modules.head", "Detect.one2many", ()),
    ("ultralytics.nn.modules.head", "Detect.decode_bboxes", ("bboxes", "anchors", "angle")),
    ("ultralytics.nn.modules.head", "Detect.fuse", ()),
    ("ultralytics.nn.modules.head", "OBB.forward_head", ("x", "angle_head")),
    ("ultralytics.utils.loss", "v8DetectionLoss.parse_output", ("preds",)),
    ("ultralytics.utils.loss", "v8OBBLoss.loss", ("preds", "batch")),
    ("ultralytics.utils.loss", "E2ELoss.update", ()),
    ("ultralytics.utils.tal", "TaskAlignedAssigner.forward", ("pd_scores", "pd_bboxes", "gt_bboxes", "mask_gt")),
    ("ultralytics.utils.torch_utils", "strip_optimizer", ("f",)),
    ("ultralytics.utils.torch_utils", "unwrap_model", ()),
    ("ultralytics.utils.torch_utils", "init_seeds", ("seed", "deterministic")),
    ("ultralytics.utils.torch_utils", "unset_deterministic", ()),
    ("ultralytics.utils.torch_utils", "select_device", ("device", "verbose")),
    ("ultralytics.utils.callbacks", "get_default_callbacks", ()),
    ("ultralytics.utils", "DEFAULT_CFG", ()),
    ("ultralytics.utils", "DEFAULT_CFG_KEYS", ()),
    ("ultralytics.utils", "LOGGER", ()),
    ("ultralytics.utils", "LOCAL_RANK", ()),
    ("ultralytics.utils", "RANK", ()),
    ("ultralytics.utils", "USER_CONFIG_DIR", ()),
    ("ultralytics.utils", "__version__", ()),
    ("ultralytics.cfg", "get_cfg", ("cfg", "overrides")),
    ("ultralytics.cfg", "get_save_dir", ("args",)),
    ("ultralytics.cfg", "merge_equals_args", ("args",)),
    ("ultralytics.cfg", "smart_value", ("v",)),
    ("ultralytics.utils.checks", "check_model_file_from_stem", ("model",)),
    ("ultralytics.data.utils", "img2label_paths", ("img_paths",)),
    ("ultralytics.data.utils", "IMG_FORMATS", ()),
    ("ultralytics.utils.patches", "imread", ("filename", "flags")),
    ("ultralytics.engine.trainer", "BaseTrainer._build_train_pipeline", ()),
    ("ultralytics.engine.trainer", "BaseTrainer._model_train", ()),
    ("ultralytics.engine.trainer", "BaseTrainer._get_warmup_iterations", ("num_batches",)),
    ("ultralytics.engine.trainer", "BaseTrainer.save_metrics", ("metrics",)),
    ("ultralytics.engine.trainer", "BaseTrainer._handle_nan_recovery", ("epoch",)),
    ("ultralytics.models.yolo.detect", "DetectionTrainer.build_dataset", ("img_path", "mode", "batch")),
    ("ultralytics.data", "build_yolo_dataset", ("cfg", "img_path", "batch", "data", "mode", "rect", "stride")),
    ("ultralytics.utils.checks", "check_imgsz", ("imgsz", "stride", "min_dim", "max_dim", "floor")),
    ("ultralytics.nn.tasks", "yaml_model_load", ("path",)),
    ("ultralytics.data.utils", "check_det_dataset", ("dataset", "autodownload", "split")),
    ("ultralytics.data.utils", "convert_ndjson_to_yolo_if_needed", ("data", "fraction", "split")),
    ("ultralytics.data.utils", "get_split_fraction", ("fraction", "split")),
    ("ultralytics.data.dataset", "YOLODataset.collate_fn", ("batch",)),
    ("ultralytics.models.yolo.detect", "DetectionValidator.get_dataloader", ("dataset_path", "batch_size")),
    ("ultralytics.models.yolo.detect", "DetectionValidator.build_dataset", ("img_path", "mode", "batch")),
    ("ultralytics.engine.validator", "BaseValidator.__call__", ("trainer", "model")),
    ("ultralytics.utils.torch_utils", "parse_device", ("device",)),
    ("ultralytics.utils.torch_utils", "get_flops", ("model", "imgsz")),
    ("ultralytics.utils.torch_utils", "prepare_qat", ("model", "dataloader", "preprocess", "batches")),
    ("ultralytics.utils.torch_utils", "is_qat", ("model",)),
    ("ultralytics.utils.torch_utils", "MODELOPT_REQUIREMENTS", ()),
    ("ultralytics.utils.checks", "check_requirements", ("requirements", "install")),
    # a resumed run
    ("ultralytics.engine.trainer", "BaseTrainer.preprocess_batch", ("batch",)),
    ("ultralytics.engine.trainer", "BaseTrainer._close_dataloader_mosaic", ()),
    ("ultralytics.data.build", "_RepeatSampler", ("sampler",)),  # an attribute of the loader's batch sampler
    ("ultralytics.data.build", "InfiniteDataLoader.close", ()),
    ("ultralytics.data.base", "BaseDataset.load_image", ("i",)),
    # unlabelled images
    ("ultralytics.utils", "colorstr", ("input",)),
    ("ultralytics.data.dataset", "YOLODataset", ("data", "task", "args", "kwargs")),
    ("ultralytics.data.dataset", "YOLODataset.close_mosaic", ("hyp",)),
    ("ultralytics.data.base", "BaseDataset", ("img_path", "imgsz", "hyp", "prefix", "pad", "classes", "fraction")),
    ("ultralytics.data.base", "BaseDataset.get_img_files", ("img_path",)),
    ("ultralytics.data.dataset", "YOLODataset.get_labels", ()),
    # validation
    ("ultralytics.engine.model", "Model.val", ("validator",)),
    ("ultralytics.engine.validator", "BaseValidator.match_predictions", ("pred_classes", "true_classes", "iou")),
    ("ultralytics.models.yolo.detect", "DetectionValidator.init_metrics", ("model",)),
    ("ultralytics.models.yolo.detect", "DetectionValidator._process_batch", ("preds", "batch")),
    ("ultralytics.models.yolo.detect", "DetectionValidator.postprocess", ("preds",)),
    ("ultralytics.models.yolo.detect", "DetectionValidator.plot_val_samples", ("batch", "ni")),
    ("ultralytics.models.yolo.detect", "DetectionValidator.plot_predictions", ("batch", "preds", "ni")),
    ("ultralytics.models.yolo.detect", "DetectionValidator.scale_preds", ("predn", "pbatch")),
    ("ultralytics.models.yolo.detect", "DetectionValidator.get_stats", ()),
    ("ultralytics.models.yolo.obb", "OBBValidator._process_batch", ("preds", "batch")),
    ("ultralytics.models.yolo.obb", "OBBValidator.scale_preds", ("predn", "pbatch")),
    ("ultralytics.data.base", "BaseDataset.update_labels", ("include_class",)),
    ("ultralytics.utils.metrics", "ap_per_class", ("tp", "conf", "pred_cls", "target_cls")),
    ("ultralytics.utils.metrics", "ConfusionMatrix", ("names", "task", "save_matches")),
    # safe loading
    ("ultralytics.nn.tasks", "SAFE_LOAD", ()),
    ("ultralytics.data.dataset", "load_dataset_cache_file", ("path",)),
    ("ultralytics.nn.tasks", "_SafeLoad.SUPPORTED", ()),
    ("ultralytics.nn.tasks", "_SafeLoad.restricted", ()),
    ("ultralytics.nn.tasks", "_SafeLoad.activation", ("act",)),
    ("ultralytics.data.utils", "verify_image_label", ("args",)),
    ("ultralytics.utils.checks", "check_yaml", ("file",)),
    ("ultralytics.utils", "YAML.load", ("file",)),
    # AutoBatch: it calls a stand-in for the model, which has what `profile_ops` reads
    ("ultralytics.engine.trainer", "BaseTrainer.auto_batch", ("max_num_obj", "dataset_size")),
    ("ultralytics.models.yolo.detect", "DetectionTrainer.auto_batch", ()),
    ("ultralytics.utils.torch_utils", "profile_ops", ("input", "ops", "n", "device", "max_num_obj")),
    # export
    ("ultralytics.engine.exporter", "export_formats", ()),
    ("ultralytics.engine.exporter", "validate_args", ("format", "passed_args", "valid_args")),
    ("ultralytics.nn.autobackend", "AutoBackend", ("model", "device", "fp16", "end2end", "verbose")),
    (
        "ultralytics.utils.nms",
        "non_max_suppression",
        ("agnostic", "max_det", "nc", "max_time_img", "rotated", "end2end"),
    ),
    ("ultralytics.utils.checks", "check_file", ("file", "suffix", "download")),
    ("ultralytics.data.augment", "LetterBox", ("new_shape",)),
    ("ultralytics.data.augment", "LetterBox.__call__", ("image",)),
    ("ultralytics.utils.ops", "xywh2xyxy", ()),
    ("ultralytics.utils.ops", "xyxy2xywh", ()),
    # prediction
    ("ultralytics.engine.model", "Model._smart_load", ("key",)),
    ("ultralytics.engine.predictor", "BasePredictor.setup_model", ("model", "verbose")),
    ("ultralytics.engine.predictor", "BasePredictor.__call__", ("source", "stream")),
    ("ultralytics.engine.results", "Results", ("orig_img", "path", "names", "boxes", "obb")),
    ("ultralytics.engine.results", "Results.save_txt", ("txt_file",)),
    ("ultralytics.cfg", "QUANTIZE_ALIASES", ()),
    # comparison of arms
    ("ultralytics.engine.trainer", "BaseTrainer.run_callbacks", ("event",)),
    ("ultralytics.nn.distill_model", "DistillationModel", ("teacher_model", "student_model")),  # attributes, too
    ("ultralytics.utils.checks", "collect_system_info", ()),
    ("ultralytics.utils.torch_utils", "get_cpu_info", ()),
    ("ultralytics.utils.torch_utils", "get_gpu_info", ("index",)),
    ("ultralytics.utils.torch_utils", "NUM_THREADS", ()),
    ("ultralytics.data.utils", "_replace_image", ()),
    # preparation of data sets
    ("ultralytics.data.split_dota", "get_windows", ("im_size", "crop_sizes", "gaps")),
    ("ultralytics.data.split_dota", "get_window_obj", ("anno", "windows", "iof_thr")),
    ("ultralytics.data.split_dota", "crop_and_save", ("anno", "windows", "window_objs", "im_dir", "lb_dir")),
    ("ultralytics.data.utils", "exif_size", ("img",)),
    ("ultralytics.utils.patches", "imread_unicode", ("filename",)),
    ("ultralytics.utils.patches", "imwrite", ("filename", "img")),
    ("ultralytics.utils", "SETTINGS", ()),
)


def _moved(module: str, dotted: str, parameters: tuple[str, ...]) -> str | None:
    """Return the name of an internal, or of its parameter, if it is not where the bridge expects it."""
    try:
        internal = import_module(module)
        for part in dotted.split("."):
            internal = getattr(internal, part)
    except (ImportError, AttributeError):
        return f"{module}.{dotted}"
    if not parameters:
        return None
    known = inspect.signature(internal).parameters  # type: ignore[arg-type]
    lacking = [p for p in parameters if p not in known]
    return f"{module}.{dotted}({', '.join(lacking)})" if lacking else None


def check_ultralytics() -> None:
    """Check that the installed Ultralytics has the internals that the bridge uses.

    Raises:
        DS2D2Error: If it is too old, or a newer release has moved an internal; each one is named.
    """
    version = installed_version("ultralytics")
    release = tuple(int(x) for x in version.split(".")[:3] if x.isdigit())
    if release < MINIMUM:
        minimum = ".".join(map(str, MINIMUM))
        raise DS2D2Error(f"ultralytics {version} is too old: pip install 'ultralytics>={minimum}'")
    moved = [name for entry in INTERNALS if (name := _moved(*entry))]
    if moved:
        raise DS2D2Error(
            f"ultralytics {version} has moved what ds2d2-yolo builds on: {', '.join(moved)}; install the versions of "
            "constraints.txt, or a newer ds2d2-yolo"
        )
