"""What every attention head does, with the evidence."""

from __future__ import annotations

from interp.heads.atlas import HeadAtlas
from interp.heads.attention import attention, repeated_tokens
from interp.heads.attention_patterns import AttentionPatterns, attention_patterns
from interp.heads.claims import Claim, check_claim, random_sets
from interp.heads.compare import AtlasDifference, compare
from interp.heads.development.checkpoints import Checkpoints, checkpoints
from interp.heads.development.over_training import over_training
from interp.heads.development.phase_change import PhaseChange, phase_change
from interp.heads.development.training_curves import TrainingCurves
from interp.heads.facts import Verification, verify
from interp.heads.function_vector import FunctionVectors, function_vector
from interp.heads.importance.gradient import Importance, gradient_importance
from interp.heads.importance.head_ablation import HeadAblation, one_head_left, single_heads
from interp.heads.importance.pruning import PruningCurve, prune
from interp.heads.importance.scaling import Scaling, attribution_to_context, scale_heads
from interp.heads.importance.shapley import Shapley, shapley
from interp.heads.induction.copying import copying
from interp.heads.induction.diagonals import diagonal_scores
from interp.heads.induction.icl_score import ICLScore, icl_score
from interp.heads.induction.pattern_match import PatternMatch, pattern_match
from interp.heads.induction.prefix_matching import prefix_matching
from interp.heads.induction.qk_composition import QKComposition, qk_composition
from interp.heads.induction.repeated_loss import RepeatedLoss, repeated_loss
from interp.heads.kinds import KINDS, Kind
from interp.heads.layer_profile import LayerProfile, compare_depths, layer_profile
from interp.heads.names.copy_suppression import (
    CopySuppressionShare,
    copy_suppression,
    copy_suppression_share,
)
from interp.heads.names.logit_attribution import LogitAttribution, logit_attribution
from interp.heads.names.name_copying import name_copying
from interp.heads.names.roles import name_mover, role_attention, s_inhibition
from interp.heads.needles.masking import RetrievalMasking, retrieval_masking
from interp.heads.needles.query_focused import query_focused
from interp.heads.needles.retrieval import RetrievalHeads, retrieval
from interp.heads.overlap import Overlap, overlap
from interp.heads.parameters.checks import Causal, Correlative, causal_check, correlative_check
from interp.heads.parameters.maps import Maps, RelationScore, maps
from interp.heads.parameters.relations import published_relations, task_relations
from interp.heads.parameters.salient import Salient, salient
from interp.heads.scan import scan
from interp.heads.score import Score
from interp.heads.succession.effective_ov import EffectiveOV, effective_ov
from interp.heads.succession.mod10 import Mod10, mod10
from interp.heads.succession.succession_effect import SuccessionEffect, succession_effect
from interp.heads.succession.successor import Successors, successor
from interp.heads.weights import Weights

__all__ = [
    "KINDS",
    "AtlasDifference",
    "AttentionPatterns",
    "Causal",
    "Checkpoints",
    "Claim",
    "CopySuppressionShare",
    "Correlative",
    "EffectiveOV",
    "FunctionVectors",
    "HeadAblation",
    "HeadAtlas",
    "ICLScore",
    "Importance",
    "Kind",
    "LayerProfile",
    "LogitAttribution",
    "Maps",
    "Mod10",
    "Overlap",
    "PatternMatch",
    "PhaseChange",
    "PruningCurve",
    "QKComposition",
    "RelationScore",
    "RepeatedLoss",
    "RetrievalHeads",
    "RetrievalMasking",
    "Salient",
    "Scaling",
    "Score",
    "Shapley",
    "SuccessionEffect",
    "Successors",
    "TrainingCurves",
    "Verification",
    "Weights",
    "attention",
    "attention_patterns",
    "attribution_to_context",
    "causal_check",
    "check_claim",
    "checkpoints",
    "compare",
    "compare_depths",
    "copy_suppression",
    "copy_suppression_share",
    "copying",
    "correlative_check",
    "diagonal_scores",
    "effective_ov",
    "function_vector",
    "gradient_importance",
    "icl_score",
    "layer_profile",
    "logit_attribution",
    "maps",
    "mod10",
    "name_copying",
    "name_mover",
    "one_head_left",
    "over_training",
    "overlap",
    "pattern_match",
    "phase_change",
    "prefix_matching",
    "prune",
    "published_relations",
    "qk_composition",
    "query_focused",
    "random_sets",
    "repeated_loss",
    "repeated_tokens",
    "retrieval",
    "retrieval_masking",
    "role_attention",
    "s_inhibition",
    "salient",
    "scale_heads",
    "scan",
    "shapley",
    "single_heads",
    "succession_effect",
    "successor",
    "task_relations",
    "verify",
]
