"""Front ends, part of the networks: what they hear of a waveform."""

import torch
from torch import nn
from torch.nn import functional
from torchaudio.functional import melscale_fbanks


class LogMel(nn.Module):
    """Log-mel spectrogram: waveform in, decibels out. Always computed in float32.

    Shapes: b = batch, n = samples, t = frames = 1 + n // hop_length, f = mel bands.

    The paper gives 94 frames x 128 mels for one second, which is 48 kHz with a centred hop of 512;
    window, mel scale and range are our reading (spec: Hann 1024, Slaney, 50 Hz to 22 kHz).

    Args:
        sample_rate_hz: rate of the waveform.
        n_fft: window and FFT length, samples.
        hop_length: samples between frames.
        n_mels: mel bands f.
        fmin_hz: lower edge of the lowest band.
        fmax_hz: upper edge of the highest band.
        floor: power below which the logarithm is held (1e-10 is -100 dB).
    """

    window: torch.Tensor
    mel_basis: torch.Tensor

    def __init__(
        self,
        sample_rate_hz: int = 48_000,
        n_fft: int = 1024,
        hop_length: int = 512,
        n_mels: int = 128,
        fmin_hz: float = 50.0,
        fmax_hz: float = 22_000.0,
        floor: float = 1e-10,
    ) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.floor = floor
        basis = melscale_fbanks(
            n_fft // 2 + 1, fmin_hz, fmax_hz, n_mels, sample_rate_hz, norm="slaney", mel_scale="slaney"
        )
        # Not persistent: both follow from the configuration and would double the weights file.
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("mel_basis", basis.T.contiguous(), persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples at full scale +-1 into (b, t, f) decibels."""
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(  # (b, n_fft // 2 + 1, t), complex
                waveform.float(),
                self.n_fft,
                self.hop_length,
                window=self.window,
                center=True,
                pad_mode="reflect",
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()
            mel = torch.matmul(self.mel_basis, power)  # (b, f, t)
            return 10.0 * torch.log10(mel.clamp(min=self.floor)).transpose(1, 2)  # (b, t, f)


class WaveformStatistics(nn.Module):
    """What a spectrogram does not show: peaks, jumps, flat tops and surprises of the waveform, frame by frame.

    Shapes: b = batch, n = samples, t = ceil(n / frame), all in float32. Levels are logarithms, so that a gain only
    shifts them; "flat" counts are shares of the frame's samples.

    Args:
        frame: samples of one frame; frames do not overlap.
    """

    features = 16
    BRIEF = 16  # samples: a click is over by then, a drum is not

    def __init__(self, frame: int = 512) -> None:
        super().__init__()
        self.frame = frame

    @torch.no_grad()
    def forward(self, waveform: torch.Tensor, white: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples, and the same `whiten`ed, into (b, features, t)."""
        with torch.autocast(waveform.device.type, enabled=False):
            rest = -waveform.shape[1] % self.frame
            return self._describe(functional.pad(waveform.float(), (0, rest)), functional.pad(white, (0, rest)))

    def _describe(self, x: torch.Tensor, white: torch.Tensor) -> torch.Tensor:
        def frames(values: torch.Tensor) -> torch.Tensor:
            return values.view(len(values), -1, self.frame)

        def share(hits: torch.Tensor) -> torch.Tensor:
            return hits.sum(dim=2, dtype=torch.int16).float() / self.frame

        size = x.abs()
        peak = size.amax(dim=1, keepdim=True).clamp(min=1e-5)  # (b, 1)
        step = torch.diff(x, dim=1, prepend=x[:, :1])
        bend = frames(torch.diff(step, dim=1, append=step[:, -1:]).abs_())  # a jump leaves a pair of peaks here
        step, size = frames(step.abs_()), frames(size)  # (b, t, frame)
        frame_peak = size.amax(dim=2)  # (b, t)
        peak_f = peak.unsqueeze(2)
        power = frames(white.square())
        brief = power.view(*power.shape[:2], -1, self.BRIEF).mean(dim=3).amax(dim=2)
        near, top, flat = size > 0.98 * frame_peak.unsqueeze(2), size > 0.9 * peak_f, step < 2e-3 * peak_f
        levels = [
            frame_peak,
            torch.linalg.vector_norm(size, dim=2) / self.frame**0.5,
            step.amax(dim=2),
            step.mean(dim=2),
            bend.amax(dim=2),
            bend.mean(dim=2),
            power.amax(dim=2),
            brief,
            power.mean(dim=2),
        ]
        shares = [
            share(size > 0.995 * peak_f),
            share(size > 0.97 * peak_f),
            share(top),
            share(near),
            share(flat & near),
            share(flat & top),
        ]
        logs = [torch.log(level + 1e-6) for level in levels]
        rare = [torch.log(value + 1e-3) for value in shares]  # one sample of 512 is 2e-3
        return torch.stack([*logs, *rare, torch.log(peak).expand_as(frame_peak)], dim=1)


class ToneSpectrum(nn.Module):
    """Low frequencies in fine steps: which tones are there, and do they last?

    A hum is one tone of constant strength; a held note swells, fades and wavers. The first channel holds the decibels
    of each frequency from moment to moment, the second those over the whole segment, where only a tone that stays
    where it is for all of it keeps its level. A full-scale sine has 0 dB in both.

    Shapes: b = batch, n = samples, t = frames (8 a second), f = frequencies (steps of 4 Hz).

    Args:
        sample_rate_hz: rate of the waveform.
        fmin_hz: lowest frequency (hum begins at 21 Hz).
        fmax_hz: highest frequency (hum ends at 1219 Hz).
        floor: power below which the logarithm is held.
    """

    STEP_HZ = 4
    BAND_HZ = 1536  # what is kept of the waveform: twice that is the rate of the frames' samples
    WINDOW = 2 * BAND_HZ // STEP_HZ  # samples at that rate: a quarter of a second
    HOP = WINDOW // 2
    window: torch.Tensor

    def __init__(
        self, sample_rate_hz: int = 48_000, fmin_hz: int = 16, fmax_hz: int = 1260, floor: float = 1e-10
    ) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.lowest, self.highest = fmin_hz // self.STEP_HZ, fmax_hz // self.STEP_HZ + 1
        self.floor = floor
        self.register_buffer("window", torch.hann_window(self.WINDOW), persistent=False)

    @torch.no_grad()
    def forward(self, spectrum: torch.Tensor, samples: int) -> torch.Tensor:
        """Turn the spectrum (b, n // 2 + 1) of a waveform of n samples (`torch.fft.rfft`) into (b, 2, t, f)."""
        with torch.autocast(spectrum.device.type, enabled=False):
            seconds = samples / self.sample_rate_hz
            kept = round(self.BAND_HZ * seconds)
            low = torch.fft.irfft(spectrum[:, : kept + 1], 2 * kept) * (2 * kept / samples)  # (b, 2 * kept)
            frames = torch.fft.rfft(low.unfold(1, self.WINDOW, self.HOP) * self.window)  # (b, t, WINDOW // 2 + 1)
            frames = frames[:, :, self.lowest : self.highest] * (4.0 / self.WINDOW)  # of a Hann window: half of n / 2
            first = round((self.lowest - 0.5) * self.STEP_HZ * seconds)
            last = round((self.highest - 0.5) * self.STEP_HZ * seconds)
            # A Hann window over the whole segment, in the frequency domain.
            around = spectrum[:, first - 1 : last + 1]
            whole = (around[:, 1:-1] - 0.5 * (around[:, :-2] + around[:, 2:])) * (2.0 / samples)
            now = self._decibels(frames)  # (b, t, f)
            lasting = functional.adaptive_max_pool1d(self._decibels(whole), now.shape[2])  # (b, f)
            return torch.stack([now, lasting.unsqueeze(1).expand_as(now)], dim=1)

    def _decibels(self, spectrum: torch.Tensor) -> torch.Tensor:
        power = spectrum.real.square() + spectrum.imag.square()
        return 10.0 * torch.log10(power.clamp(min=self.floor))


def whiten(spectrum: torch.Tensor, samples: int, smooth: int = 256) -> torch.Tensor:
    """The waveform with a flat spectrum, in which what no neighbouring sample foretells (a click) stands out.

    Args:
        spectrum: (b, n // 2 + 1) of a waveform of n samples (`torch.fft.rfft`).
        samples: n.
        smooth: bins over which the spectrum's envelope is taken.

    Returns:
        (b, n) with an RMS of about 1.
    """
    power = spectrum.real.square() + spectrum.imag.square()
    envelope = functional.avg_pool1d(power, smooth, ceil_mode=True, count_include_pad=False)
    # 60 dB under the average, a codec's empty bands stay empty.
    envelope = envelope + 1e-6 * envelope.mean(dim=1, keepdim=True) + 1e-12 * samples
    gain = functional.interpolate(torch.rsqrt(envelope).unsqueeze(1), power.shape[1], mode="linear").squeeze(1)
    return torch.fft.irfft(spectrum * gain, samples) * samples**0.5
