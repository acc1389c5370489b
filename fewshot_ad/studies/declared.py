"""What a study declares: methods on classes, known sets, shots and seeds."""

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from fewshot_ad.evaluation.known import LIMIT

Shots = Annotated[int, Field(ge=0)] | Literal["full"]
Precision = Literal["fp32", "bf16", "openvino", "openvino-bf16"]
Value = bool | int | float | str | list[int | float | str] | None
Percent = Annotated[float, Field(ge=0, le=100)] | None


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MethodEntry(_Entry):
    """A method with what is changed of it; a bare name in the file is one without changes.

    Attributes:
        method: what ``--method`` takes.
        paper: start from the paper's settings.
        set: parameters, as ``--set`` takes them.
        grid: parameters with several values each; every combination is a method of its own.
        backbone, prompts: as the options of ``eval``; a list stands for a method with each.
        precision, weights_dir: as the options of ``eval``.
    """

    method: str
    paper: bool = False
    set: dict[str, Value] = Field(default_factory=dict[str, Value])
    grid: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(
        default_factory=dict[str, list[Value]]
    )
    backbone: str | list[str] | None = None
    prompts: str | list[str] | None = None
    precision: Precision = "fp32"
    weights_dir: str | None = None

    @model_validator(mode="after")
    def _set_once(self) -> "MethodEntry":
        if both := sorted({*self.set} & {*self.grid}):
            raise ValueError(f"{both[0]} is in 'set' and in 'grid'; give it once")
        return self

    def variants(self) -> Iterator["Variant"]:
        """Every combination of parameters, backbones and prompts."""
        chosen = (
            dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())
        )
        for values, backbone, prompts in product(
            list(chosen), _listed(self.backbone), _listed(self.prompts)
        ):
            yield Variant(
                method=self.method,
                paper=self.paper,
                settings=[f"{n}={_text(v)}" for n, v in (self.set | values).items()],
                backbone=backbone,
                prompts=prompts,
                precision=self.precision,
                weights_dir=self.weights_dir,
            )


class Variant(_Entry):
    """One method of an entry; ``settings`` are as ``--set`` takes them."""

    method: str
    paper: bool
    settings: list[str]
    backbone: str | None
    prompts: str | None
    precision: Precision
    weights_dir: str | None


class Target(_Entry):
    """Classes under test.

    Attributes:
        dataset: as ``--dataset`` takes it.
        classes: their names; all of them where nothing is said.
        known: the known sets for these classes, where they are not those of the study.
    """

    dataset: str
    classes: list[str] = Field(default=["all"], min_length=1)
    known: Annotated[list[str | None], Field(min_length=1)] | None = None


class Published(_Entry):
    """A published number in percent, shown beside ours and never mixed with them.

    Attributes:
        dataset: its name, without a root.
        target_class: one class; the mean over classes where nothing is said.
        known: name of the dataset of meta-training.
        source: where it stands, and what differs there.
    """

    method: str
    dataset: str
    shots: Shots
    source: str
    target_class: str | None = None
    known: str | None = None
    backbone: str | None = None
    i_auroc: Percent = None
    i_ap: Percent = None
    i_f1_max: Percent = None
    p_auroc: Percent = None
    p_ap: Percent = None
    p_f1_max: Percent = None
    aupro: Percent = None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that have a number, by name."""
        names = ("i_auroc", "i_ap", "i_f1_max", "p_auroc", "p_ap", "p_f1_max", "aupro")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _has_a_number(self) -> "Published":
        if not self.metrics:
            raise ValueError("a published entry without a number; give i_auroc, p_auroc ...")
        return self


class Study(_Entry):
    """The grid: every method on every class, with all known sets, numbers of shots and seeds.

    Attributes:
        title: one line for the head of the table.
        methods, targets: the rows of the grid.
        shots: numbers of normal images.
        seeds: how many draws of the support, or a list of seeds.
        anomalous_shots: labelled anomalies, for supervised methods alone.
        known: what ``--known`` takes, a run for each; None for the target's other classes. Only
            meta-trained methods read it.
        overlap: where a known set holds a target, ``leave_out`` meta-trains without that class, as
            ``eval`` does, and ``skip`` runs other pairs only. Naming a target among the classes of
            a known set is an error unless it says ``skip``.
        known_limit: at most so many normal and anomalous images of a known class.
        query_limit: so many normal and anomalous images per class at most.
        eval_size: side at which maps meet masks, or ``native``.
        boxes: whether to judge boxes too.
        published: numbers to show beside ours.
        analysis: what is asked of every episode: its ``metrics``, the ``influence`` of each support
            image, or metrics by ``sizes`` of defects; see ``analyses``.
        draws: supports that ``influence`` compares.
        tiles: factors that ``sizes`` compares, 1 for whole images.
    """

    title: str
    methods: list[MethodEntry] = Field(min_length=1)
    targets: list[Target] = Field(min_length=1)
    shots: list[Shots] = Field(min_length=1)
    seeds: PositiveInt | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = 5
    anomalous_shots: Annotated[int, Field(ge=0)] = 0
    known: list[str | None] = Field(default=[None], min_length=1)
    overlap: Literal["leave_out", "skip"] = "leave_out"
    known_limit: PositiveInt = LIMIT
    query_limit: PositiveInt | None = None
    eval_size: PositiveInt | Literal["native"] = 256
    boxes: bool = False
    published: list[Published] = Field(default_factory=list[Published])
    analysis: Literal["metrics", "influence", "sizes"] = "metrics"
    draws: PositiveInt = 20
    tiles: list[PositiveInt] = Field(default=[1, 2], min_length=1)

    @property
    def seed_list(self) -> list[int]:
        """The seeds one by one."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @field_validator("methods", mode="before")
    @classmethod
    def _bare_names(cls, entries: Any) -> Any:
        if not isinstance(entries, list):
            return entries
        return [{"method": each} if isinstance(each, str) else each for each in entries]

    @field_validator("methods", "targets", "shots", "seeds", "known", "tiles")
    @classmethod
    def _all_different(cls, entries: Any) -> Any:
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            if entry in entries[:number]:
                name = getattr(entry, "method", getattr(entry, "dataset", entry))
                raise ValueError(f"{name} is listed twice with the same settings")
        return entries


def _listed(value: str | list[str] | None) -> list[str] | list[None]:
    if value is None:
        return [None]
    return value if isinstance(value, list) else [value]


def _text(value: Value) -> str:
    if isinstance(value, list):
        return ",".join(str(each) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
