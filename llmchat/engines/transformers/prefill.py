"""How many tokens of a prompt are read in one pass."""

# Enough for full matrix speed and for one dequantising of most prompts, few enough that the
# activations stay small. An encoder reads its prompt whole.
PREFILL_CHUNK = 1024
# Where other answers wait for their next token meanwhile.
SHARED_CHUNK = 256
# A prompt with so many tokens to read tells how far it is.
TOLD_FROM = 256
# Nothing interrupts a pass, so one that takes longer than this delays Ctrl-C and the progress shown.
_PASS_SECONDS = 1.5
_STEP = 64
# Of two cores of a server CPU in int8, until the first pass has been measured.
_TYPICAL_FLOPS = 9e11


def first_chunk(parameters: float) -> int:
    """The tokens of the first pass of a model with so many parameters: two operations each a token."""
    return prefill_chunk(_TYPICAL_FLOPS / (2 * max(parameters, 1.0)))


def prefill_chunk(speed: float) -> int:
    """The tokens of a pass that takes some 1.5 seconds at `speed` tokens a second, in steps of 64.

    Only where the numbers of a token do not depend on what is read with it: elsewhere the same
    prompt would give other numbers on a slower machine.
    """
    return max(_STEP, min(PREFILL_CHUNK, int(speed * _PASS_SECONDS) // _STEP * _STEP))
