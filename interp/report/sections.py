"""Which function tells of which result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interp.circuits import (
    Circuit,
    CrossTask,
    Curve,
    Dissociation,
    Evaluation,
    Overlap,
    Recall,
    SelfRepair,
    SharedRoles,
    Stability,
    Triple,
)
from interp.consistency import (
    AlignedValues,
    AttentionMass,
    Consistency,
    FalseInduction,
    GapReduction,
    Overthinking,
    Sources,
)
from interp.engine import SweepResult
from interp.grokking import GrokkingCurves, ModularAnalysis
from interp.heads import AttentionPatterns, HeadAtlas, TrainingCurves
from interp.lens import LensComparison, LensReading
from interp.probes import CodeLength, Depth, Erasure, ProbeResult, StepProbes, Transfer
from interp.report.circuits.circuit import circuit_section, companion_section
from interp.report.circuits.evaluation import evaluation_section
from interp.report.circuits.overlap import (
    cross_section,
    dissociation_section,
    overlap_section,
    roles_section,
)
from interp.report.consistency.answer_sources import (
    aligned_values_section,
    attention_mass_section,
    sources_section,
)
from interp.report.consistency.consistency import consistency_section
from interp.report.consistency.overthinking import (
    false_induction_section,
    gap_reduction_section,
    overthinking_section,
)
from interp.report.heads.atlas import atlas_section
from interp.report.heads.attention import attention_section
from interp.report.other import other_section
from interp.report.parts import Section
from interp.report.probes.lens import comparison_section, reading_section
from interp.report.probes.probe_measures import codelength_section, depth_section, erasure_section
from interp.report.probes.probes import probe_section, steps_section, transfer_section
from interp.report.sweeps.section import sweep_section
from interp.report.training.curves import curves_section
from interp.report.training.grokking import analysis_section, grokking_curves_section
from interp.report.vectors.function_vectors import function_vector_section, head_check_section
from interp.report.vectors.in_context import (
    interpolation_section,
    recognition_section,
    specification_section,
    superposition_section,
)
from interp.report.vectors.injections import (
    composition_section,
    injection_section,
    reconstruction_section,
)
from interp.report.vectors.learned_vectors import learned_section
from interp.report.vectors.steering import steering_section, strengths_section
from interp.report.vectors.task_vectors import (
    task_evaluation_section,
    task_table_section,
    task_vector_section,
)
from interp.vectors import (
    Composition,
    FunctionVector,
    HeadCheck,
    Injection,
    Interpolation,
    LearnedEvaluation,
    Recognition,
    Reconstruction,
    Specification,
    SteeringVector,
    StrengthSweep,
    Superposition,
    TaskEvaluation,
    TaskTable,
    TaskVector,
)

SECTIONS: dict[type, Callable[[Any, Sequence[object]], Section | None]] = {
    HeadAtlas: atlas_section,
    AttentionPatterns: attention_section,
    SweepResult: sweep_section,
    TrainingCurves: curves_section,
    Circuit: circuit_section,
    Evaluation: evaluation_section,
    Curve: companion_section,
    Triple: companion_section,
    Stability: companion_section,
    Recall: companion_section,
    SelfRepair: companion_section,
    Overlap: overlap_section,
    CrossTask: cross_section,
    Dissociation: dissociation_section,
    SharedRoles: roles_section,
    TaskVector: task_vector_section,
    TaskEvaluation: task_evaluation_section,
    TaskTable: task_table_section,
    FunctionVector: function_vector_section,
    HeadCheck: head_check_section,
    Injection: injection_section,
    Composition: composition_section,
    Reconstruction: reconstruction_section,
    SteeringVector: steering_section,
    StrengthSweep: strengths_section,
    LearnedEvaluation: learned_section,
    Superposition: superposition_section,
    Interpolation: interpolation_section,
    Specification: specification_section,
    Recognition: recognition_section,
    Consistency: consistency_section,
    Overthinking: overthinking_section,
    FalseInduction: false_induction_section,
    GapReduction: gap_reduction_section,
    Sources: sources_section,
    AttentionMass: attention_mass_section,
    AlignedValues: aligned_values_section,
    LensReading: reading_section,
    LensComparison: comparison_section,
    ProbeResult: probe_section,
    StepProbes: steps_section,
    Transfer: transfer_section,
    CodeLength: codelength_section,
    Depth: depth_section,
    Erasure: erasure_section,
    ModularAnalysis: analysis_section,
    GrokkingCurves: grokking_curves_section,
}
"""Each takes a result and all results of the report; None if another section shows it."""


def section_of(result: object, results: Sequence[object]) -> Section | None:
    """The section of one result among the others; None if another section shows it.

    A kind without a section of its own shows its table.

    Raises:
        InterpError: no result, or one without a table.
    """
    for kind, section in SECTIONS.items():
        if isinstance(result, kind):
            return section(result, results)
    return other_section(result, results)
