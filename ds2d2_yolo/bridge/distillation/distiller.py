"""The four terms of DS2D2 for a pair of Ultralytics models: features and predictions in, terms out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.finite_guard import Gate, sound_images
from ds2d2_yolo.bridge.distillation.weighting import level_scores, score_mass, weight_maps
from ds2d2_yolo.bridge.models.amplifier import Amplifier
from ds2d2_yolo.bridge.models.composed_head import AdaptedHead
from ds2d2_yolo.bridge.models.heads import logits_and_boxes, strides_of, take_levels
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher
from ds2d2_yolo.config.settings import EXPLICIT, IMPLICIT, Settings
from ds2d2_yolo.core.losses.explicit import explicit_loss
from ds2d2_yolo.core.losses.implicit import implicit_box_loss, implicit_class_loss

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect

    from ds2d2_yolo.bridge.distillation.targets import Targets


@dataclass(frozen=True)
class Answer:
    """What an amplifier says to the teacher's features.

    Attributes:
        logits (Tensor): B x anchors x classes.
        boxes (Tensor): B x anchors x 4 or 5.
        sound (Tensor): B bool, the images whose answer is usable; the others count nothing.
    """

    logits: Tensor
    boxes: Tensor
    sound: Tensor


@dataclass(frozen=True)
class Guide:
    """What the teacher has to say to one batch; it needs no gradient.

    Attributes:
        features (list[Tensor]): Neck outputs of the shared levels, zeros for images that are not sound.
        sound (Tensor): B bool, the images on which the teacher gives usable numbers; the others count nothing.
        images (Tensor | None): Indices of the images of the implicit stream, None is all.
        answers (dict[str, Answer]): By implicit term, for those images.
        mass (Tensor | None): Normaliser of the implicit terms, see `score_mass`.
        scores (list[Tensor] | None): Largest class score in each cell of the levels, where `weight_map` asks for it.
    """

    features: list[Tensor]
    sound: Tensor
    images: Tensor | None
    answers: dict[str, Answer]
    mass: Tensor | None
    scores: list[Tensor] | None


class Distiller:
    """Computes the active terms of one batch at gain 1.

    Args:
        settings (Settings): Which terms are on, wavelet, normalisation.
        teacher (FrozenTeacher): Bound to the student's levels.
        adapters (nn.ModuleList): One 1 x 1 convolution per pair of levels.
        amplifier (Amplifier | None): High-frequency amplifier, needed while `imhi` is on.
        columns (list[int] | None): The teacher's classes that are distilled, None is all.
        seed (int): Seed of the choice of images where `implicit_fraction` is below 1.
        own_columns (list[int] | None): The student's classes that are distilled, in the order of `columns`.

    Attributes:
        left_out (dict[str, Tensor]): For each term of the last `terms`, whether it was not finite and left out.
    """

    def __init__(
        self,
        settings: Settings,
        teacher: FrozenTeacher,
        adapters: nn.ModuleList,
        amplifier: Amplifier | None,
        columns: list[int] | None = None,
        seed: int = 0,
        own_columns: list[int] | None = None,
    ) -> None:
        self.settings = settings
        self.teacher = teacher
        self.adapters = adapters
        self.columns = columns
        self.own_columns = own_columns
        self.strides = strides_of(teacher.head)
        self.left_out: dict[str, Tensor] = {}
        self.heads = {"imfu": AdaptedHead(teacher.head)}
        self._viewed: tuple[Detect, Detect] | None = None
        self.amplifier = amplifier
        if amplifier is not None:
            self.heads["imhi"] = AdaptedHead(amplifier.head)
        # of its own: the choice must not move the random state that the run's data depend on
        self._random = torch.Generator().manual_seed(seed)

    @property
    def levels(self) -> list[int]:
        """(list[int]): The student's levels that are distilled."""
        return [s for s, _ in self.teacher.pairs]

    def start_epoch(self, seed: int) -> None:
        """Seed the choice of images, so that a resumed or repeated epoch draws the same ones."""
        self._random.manual_seed(seed)

    @torch.no_grad()
    def guide(self, images: Tensor, whole: bool = False) -> Guide:
        """Return what the teacher and the amplifiers say to a batch.

        Args:
            images (Tensor): B x C x H x W in [0, 1].
            whole (bool): Whether the implicit stream takes all images whatever `implicit_fraction` says; the choice
                is drawn all the same, so that the following batches draw what they would have drawn.

        Returns:
            (Guide): For `terms`.
        """
        active = self.settings.active
        weighs = self.settings.weight_map != "disw" and bool(set(active) & set(EXPLICIT))
        if not weighs and not set(active) & set(IMPLICIT):
            features = self.teacher.features(images)
            return Guide(*_blanked(features, sound_images(features)), None, {}, None, None)
        predictions = self.teacher(images)
        logits, boxes = logits_and_boxes(self.teacher.head, predictions)
        features, sound = _blanked(predictions["feats"], sound_images([*predictions["feats"], logits, boxes]))
        mass = score_mass(self._shared(logits), sound)
        scores = level_scores(self._shared(logits), features, sound) if weighs else None
        drawn = self._choose(len(images), images.device)
        chosen = None if whole else drawn
        usable = _pick(sound, chosen)
        answers = {}
        if "imfu" in active:
            answers["imfu"] = Answer(_pick(logits, chosen), _pick(boxes, chosen), usable)
        if "imhi" in active and self.amplifier is not None:
            high = self.amplifier([_pick(f, chosen) for f in features])
            found = logits_and_boxes(self.amplifier.head, high)
            answers["imhi"] = Answer(*found, usable & sound_images(found))
        return Guide(features, sound, chosen, answers, mass, scores)

    def own(self, head: Detect, predictions: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
        """Return the student's own answer where `imfu_head` asks for it.

        Args:
            head (Detect): The student's head.
            predictions (dict[str, Any]): Its raw one-to-many outputs.

        Returns:
            (tuple[Tensor, Tensor] | None): Logits of the distilled classes and boxes on the distilled levels.
        """
        if self.settings.imfu_head == "teacher" or "imfu" not in self.settings.active:
            return None
        features = predictions["feats"]
        cells = [f.shape[2] * f.shape[3] for f in features]
        raw: dict[str, Any] = {
            key: torch.cat([torch.split(x, cells, -1)[level] for level in self.levels], -1)
            for key, x in predictions.items()
            if key in ("scores", "boxes", "angle")
        }
        logits, boxes = logits_and_boxes(
            self._view_of(head), {**raw, "feats": [features[level] for level in self.levels]}
        )
        return (logits if self.own_columns is None else logits[..., self.own_columns]), boxes

    def terms(
        self, features: list[Tensor], guide: Guide, targets: Targets, own: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the active terms at gain 1.

        Images that are not sound count nothing. The terms of a stream that are not finite all the same (features that
        the teacher's head cannot take, say) are exactly 0, with a gradient of 0; see `left_out`.

        Args:
            features (list[Tensor]): The student's neck outputs, all of its levels.
            guide (Guide): What the teacher says to the batch.
            targets (Targets): What the student's assigner received.
            own (tuple[Tensor, Tensor] | None): From `own`.

        Returns:
            (dict[str, Tensor]): Scalars in float32, keys among `settings.TERMS`.
        """
        mine = [features[level] for level in self.levels]
        active = self.settings.active
        terms: dict[str, Tensor] = {}
        adapted: list[Tensor] | None = None
        if set(active) & set(EXPLICIT):
            adapted = [adapter(x) for adapter, x in zip(self.adapters, mine, strict=True)]
            gate = Gate()
            low, high = self._explicit(gate.inputs(adapted), guide, targets)
            terms["exlo"], terms["exhi"] = gate.close(low, high)
            self.left_out |= dict.fromkeys(EXPLICIT, gate.shut)
        terms |= self._implicit(mine, adapted, guide, own)
        return {term: terms[term] for term in active}

    def _view_of(self, head: Detect) -> Detect:
        """Return the student's head on the distilled levels, which decodes as the teacher's: upright boxes as corners.

        It is made once for a head; its strides lie on the CPU, reading them must not wait for a GPU.
        """
        if self._viewed is None or self._viewed[0] is not head:
            view = take_levels(head, self.levels)
            view.stride = view.stride.cpu()
            self._viewed = head, view
        return self._viewed[1]

    def _choose(self, batch: int, device: torch.device) -> Tensor | None:
        """Draw the images of the implicit stream; None is all of them."""
        count = max(1, round(self.settings.implicit_fraction * batch))
        if count >= batch:
            return None
        return torch.randperm(batch, generator=self._random)[:count].to(device, non_blocking=True)

    def _shared(self, logits: Tensor) -> Tensor:
        """Return the columns of the classes that are distilled."""
        return logits if self.columns is None else logits[..., self.columns]

    def _implicit(
        self, mine: list[Tensor], adapted: list[Tensor] | None, guide: Guide, own: tuple[Tensor, Tensor] | None
    ) -> dict[str, Tensor]:
        """Return the implicit terms: each amplifier's answer, and the student's own, against the teacher's."""
        chosen = [_pick(x, guide.images) for x in mine]
        adapted = adapted and [_pick(a, guide.images) for a in adapted]
        # a sample without replacement, scaled up: its mean over all samples is the whole batch's term
        scale = len(mine[0]) / len(chosen[0])
        terms = {}
        for term, answer in guide.answers.items():
            gate = Gate()
            said = []
            if term != "imfu" or self.settings.imfu_head != "own":
                said.append(self._amplified(term, gate, chosen, adapted))
            if term == "imfu" and own is not None:
                logits, boxes = gate.inputs([_pick(x, guide.images) for x in own])
                said.append((logits, boxes))
            compared = [self._compared(*each, answer, guide.mass) for each in said]
            (terms[term],) = gate.close(scale * torch.stack(compared).sum())
            self.left_out[term] = gate.shut
        return terms

    def _amplified(
        self, term: str, gate: Gate, mine: list[Tensor], adapted: list[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return what an amplifier says to the student's features: logits of the distilled classes, and boxes."""
        head, inputs = self.heads[term], gate.inputs(mine)
        weights = gate.inputs(list(self.adapters.parameters()))  # one each, they have no bias
        if term == "imhi" and self.amplifier is not None:
            # hf acts on each channel alone, so hf(A S) = A hf(S), on as many channels as the student has
            predictions = head(self.amplifier.inputs(inputs), weights)
        else:
            predictions = head(inputs, weights, adapted and gate.inputs(adapted))
        logits, boxes = logits_and_boxes(head.head, predictions)
        return self._shared(logits), boxes

    def _compared(self, logits: Tensor, boxes: Tensor, answer: Answer, mass: Tensor | None) -> Tensor:
        """Return class + box distillation of predictions against an amplifier's answer."""
        assert mass is not None
        sound = answer.sound[:, None, None]
        # without an answer both sides are 0: so are the terms, and torch.where lets no gradient through
        logits, wanted, boxes, theirs = (
            torch.where(sound, x, 0) for x in (logits, self._shared(answer.logits), boxes, answer.boxes)
        )
        return implicit_class_loss(logits, wanted, mass) + implicit_box_loss(boxes, theirs, wanted, mass)

    def _explicit(self, adapted: list[Tensor], guide: Guide, targets: Targets) -> tuple[Tensor, Tensor]:
        """Return the low- and high-frequency terms of the explicit stream, summed over the levels."""
        maps = weight_maps(self.settings, adapted, self.strides, targets, guide.scores)
        keys = self.settings.wavelet, self.settings.feature_norm, self.settings.robust
        sound = guide.sound[:, None, None, None]
        low, high = zip(
            *(
                explicit_loss(mine, theirs, weight * sound, *keys, guide.sound)
                for mine, theirs, weight in zip(adapted, guide.features, maps, strict=True)
            ),
            strict=True,
        )
        return torch.stack(low).sum(), torch.stack(high).sum()


def _pick(x: Tensor, images: Tensor | None) -> Tensor:
    """Return the chosen images of a batch, all where None."""
    return x if images is None else x[images]


def _blanked(features: list[Tensor], sound: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the teacher's features with zeros for the images that are not sound, in place, and which are."""
    return [f.masked_fill_(~sound[:, None, None, None], 0) for f in features], sound
