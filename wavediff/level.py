"""How loud a recording is, measured block by block."""

import torch

from wavediff.audio import Source

LEVEL = 0.05  # RMS at which sounds enter a network
SILENT = 1e-6  # RMS below which a recording is not brought to that level any more
FRAME = 0.02  # seconds
GATE = 0.05  # of the mean power: quieter frames are pauses and do not count


def gated_rms(source: Source) -> float:
    """The RMS level of what sounds in a recording, pauses left out, over all channels.

    Frames below a gate relative to the mean are left out, as in loudness measurement (EBU R 128).
    Reads the whole source once. Silence has the level 0.
    """
    frame = max(1, round(FRAME * source.rate))
    block = frame * 256  # five seconds
    # One tensor for all of it: many small ones that stay would keep the memory between them.
    powers = torch.zeros(-(-source.samples // frame), dtype=torch.float64)
    for start in range(0, source.samples, block):
        stop = min(start + block, source.samples)
        power = source.read(start, stop).double().square().mean(0)
        short = -power.shape[0] % frame
        means = torch.nn.functional.pad(power, (0, short)).view(-1, frame).mean(-1)
        means[-1] *= frame / (frame - short)  # the last frame is what there is of it
        powers[start // frame :][: len(means)] = means
    active = powers[powers > GATE * powers.mean()]
    return float(active.mean().sqrt()) if active.numel() else 0.0


def gain(rms: float) -> float:
    """What brings a recording of this RMS to the level that networks are trained at."""
    return LEVEL / max(rms, SILENT)
