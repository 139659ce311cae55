"""A finished fine-tune whose every text is awkward."""

from llmchat.finetune.recipes import get_recipe
from llmchat.finetune.types import Counts, Outcome, Sample, Trained

AWKWARD = "<script>alert(\"x\")</script> & 'quotes'\n\n  {{ 7 * 7 }}"


def outcome(*samples: Sample) -> Outcome:
    curve = ((1, 2.0, 2.5), (2, 1.0, 1.5))
    trained = Trained(2, curve, 1.5, 60.0, 100, 123.4, 4, 1_000, False)
    counts = Counts(1000, 900, 100, 3, 2, 12_345)
    recipe = get_recipe("alpaca-lora", {"targets": ("q_proj", AWKWARD)})
    return Outcome(
        AWKWARD, AWKWARD, "abc", "alpaca", recipe, (AWKWARD,), counts, trained, samples, ""
    )
