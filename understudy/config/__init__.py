"""Every setting of `understudy.yaml`, as pydantic models; the docstring under a field is its help.

Strict: unknown keys, wrong types and out-of-range values are refused. `configfile` reads the file and reports the
line; SIZES holds what `size:` derives. The models under a stage's key are that stage's config, hence its identity,
but for the fields marked EXECUTION.
"""

from understudy.config.bias import BiasConfig, BiasPrompts, BiasRules
from understudy.config.data import (
    CleanConfig,
    CollectConfig,
    DecontaminateConfig,
    DedupeConfig,
    FieldMap,
    MergeStep,
    SourceConfig,
    SplitConfig,
    WebStep,
)
from understudy.config.evals import (
    AnswerConfig,
    ClassifierConfig,
    Decoding,
    GateConfig,
    LoopConfig,
    PromptsConfig,
    ScoreConfig,
)
from understudy.config.models import BaseConfig, PackConfig, ServiceConfig, SynthesizeConfig, TrainConfig
from understudy.config.operation import FailoverConfig, RegisterConfig, ServeConfig, TrafficConfig, WatchConfig
from understudy.config.project import SIZES, Config
from understudy.config.steps import (
    CONTROLS,
    AnswerStep,
    AskStep,
    AugmentStep,
    BiasItemsStep,
    BiasStep,
    ControlStep,
    GateStep,
    PromptsStep,
    RegisterStep,
    ReportStep,
    ScoreStep,
    SelectStep,
    SynthesizeStep,
)
from understudy.config.values import EXECUTION, OWN_FOLDERS, VERSION, Count, Grade, Name, Positive, Rate, Strict
from understudy.config.web import FetchConfig, SiteConfig

__all__ = [
    "AnswerConfig",
    "AnswerStep",
    "AskStep",
    "AugmentStep",
    "BaseConfig",
    "BiasConfig",
    "BiasItemsStep",
    "BiasPrompts",
    "BiasRules",
    "BiasStep",
    "CONTROLS",
    "ClassifierConfig",
    "CleanConfig",
    "CollectConfig",
    "Config",
    "ControlStep",
    "Count",
    "Decoding",
    "DecontaminateConfig",
    "DedupeConfig",
    "EXECUTION",
    "FailoverConfig",
    "FetchConfig",
    "FieldMap",
    "GateConfig",
    "GateStep",
    "Grade",
    "LoopConfig",
    "MergeStep",
    "Name",
    "OWN_FOLDERS",
    "PackConfig",
    "Positive",
    "PromptsConfig",
    "PromptsStep",
    "Rate",
    "RegisterConfig",
    "RegisterStep",
    "ReportStep",
    "SIZES",
    "ScoreConfig",
    "ScoreStep",
    "SelectStep",
    "SiteConfig",
    "ServeConfig",
    "ServiceConfig",
    "SourceConfig",
    "SplitConfig",
    "Strict",
    "SynthesizeConfig",
    "SynthesizeStep",
    "TrafficConfig",
    "TrainConfig",
    "VERSION",
    "WatchConfig",
    "WebStep",
]
