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

    BANDS_AT_ONCE = 16
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
        # Neighbouring bands lie in few neighbouring bins: a quarter of the multiplications, hardly any of them by zero.
        self._bins = []
        for bands in basis.T.split(self.BANDS_AT_ONCE):
            used = bands.any(dim=0).nonzero().flatten().tolist() or [0]
            self._bins.append(slice(used[0], used[-1] + 1))

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples at full scale +-1 into (b, t, f) decibels."""
        with torch.autocast(waveform.device.type, enabled=False):
            padded = _reflected(waveform.float(), self.n_fft // 2)
            # The frames' own FFT: torch.stft takes more than twice the time on a CPU.
            spectrum = torch.fft.rfft(padded.unfold(1, self.n_fft, self.hop_length) * self.window)  # (b, t, bins)
            power = _power(spectrum)
            groups = zip(self._bins, self.mel_basis.split(self.BANDS_AT_ONCE), strict=True)
            mel = torch.cat([power[..., bins] @ bands[:, bins].T for bins, bands in groups], dim=2)  # (b, t, f)
            return 10.0 * torch.log10(mel.clamp(min=self.floor))


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

        # Ones and zeros in float32: to compare into booleans takes four times as long on a CPU.
        def above(values: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
            return torch.gt(values, limit, out=torch.empty_like(values))

        def share(hits: torch.Tensor) -> torch.Tensor:
            return hits.sum(dim=2) / self.frame

        size = x.abs()
        peak = size.amax(dim=1, keepdim=True).clamp(min=1e-5)  # (b, 1)
        step = torch.diff(x, dim=1, prepend=x[:, :1])
        bend = frames(torch.diff(step, dim=1, append=step[:, -1:]).abs_())  # a jump leaves a pair of peaks here
        step, size = frames(step.abs_()), frames(size)  # (b, t, frame)
        frame_peak = size.amax(dim=2)  # (b, t)
        peak_f = peak.unsqueeze(2)
        power = frames(white.square())
        brief = power.view(*power.shape[:2], -1, self.BRIEF).mean(dim=3).amax(dim=2)
        near, top = above(size, 0.98 * frame_peak.unsqueeze(2)), above(size, 0.9 * peak_f)
        flat = torch.lt(step, 2e-3 * peak_f, out=torch.empty_like(step))
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
            share(above(size, 0.995 * peak_f)),
            share(above(size, 0.97 * peak_f)),
            share(top),
            share(near),
            share(flat * near),
            share(flat * top),
        ]
        logs = [torch.log(level + 1e-6) for level in levels]
        rare = [torch.log(value + 1e-3) for value in shares]  # one sample of 512 is 2e-3
        return torch.stack([*logs, *rare, torch.log(peak).expand_as(frame_peak)], dim=1)


class ToneSpectrum(nn.Module):
    """Low frequencies in fine steps: which tones are there, and do they last?

    A hum is one tone of constant strength; a held note swells, fades, wavers or beats with its neighbours. Sinusoidal
    analysis tells them apart: a tone that does not change keeps its level whether it is measured over an eighth of the
    segment or over all of it, has the same level in each part, and leaves the frequencies beside it empty, while every
    change of strength or pitch spreads into them.

    Shapes: b = batch, n = samples, t = frames (8 a second), f = frequencies in steps of 4 Hz, g = 4 f in steps of 1 Hz.
    A full-scale sine has 0 dB in every level.

    Args:
        sample_rate_hz: rate of the waveform.
        fmin_hz: lowest frequency, at least 12 (hum begins at 21 Hz).
        fmax_hz: end of the frequencies (hum ends at 1219 Hz).
        floor: power below which the logarithm is held.
    """

    descriptors = 5
    STEP_HZ = 4
    BAND_HZ = 1536  # what is kept of the waveform: twice that is the rate of the frames' samples
    WINDOW = 2 * BAND_HZ // STEP_HZ  # samples at that rate: a quarter of a second
    HOP = WINDOW // 2
    BESIDE_HZ = (4, 12)  # a steady tone through a Hann window over one second has fallen by 47 dB there
    window: torch.Tensor

    def __init__(
        self, sample_rate_hz: int = 48_000, fmin_hz: int = 16, fmax_hz: int = 1264, floor: float = 1e-10
    ) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.fmin_hz, self.fmax_hz = fmin_hz, fmax_hz
        self.floor = floor
        self.register_buffer("window", torch.hann_window(self.WINDOW), persistent=False)

    @torch.no_grad()
    def forward(self, spectrum: torch.Tensor, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Describe the tones of a waveform.

        Args:
            spectrum: (b, n // 2 + 1) of a waveform of n samples (`torch.fft.rfft`).
            samples: n.

        Returns:
            Decibels from moment to moment (b, 1, t, f), and what tells whether each frequency holds a steady tone
            (b, descriptors, g): its level over the whole segment in dB; by how many dB that stands above the
            frequencies beside it; the mean and the lowest level of the moments relative to it, dB; the spread of the
            moments, dB.
        """
        with torch.autocast(spectrum.device.type, enabled=False):
            kept = round(self.BAND_HZ * samples / self.sample_rate_hz)
            low = torch.fft.irfft(spectrum[:, : kept + 1], 2 * kept) * (2 * kept / samples)  # (b, 2 * kept)
            # 2 BAND_HZ samples a second: an FFT of as many points has steps of 1 Hz, whatever the segment's length.
            step = slice(self.fmin_hz, self.fmax_hz)
            fade = torch.hann_window(2 * kept, device=low.device)
            whole = self._decibels(torch.fft.rfft(_wrapped(low * fade, 2 * self.BAND_HZ)) * (2.0 / kept))  # (b, ...)
            frames = torch.fft.rfft(low.unfold(1, self.WINDOW, self.HOP) * self.window, 2 * self.BAND_HZ)
            now = self._decibels(frames[:, :, step] * (4.0 / self.WINDOW))  # (b, t, g)
            level = whole[:, step]  # (b, g)
            near, far = self.BESIDE_HZ
            around = whole[:, self.fmin_hz - far : self.fmax_hz + far]
            ring = functional.max_pool1d(around, far - near + 1, 1)  # (b, g + far + near)
            beside = torch.maximum(ring[:, : level.shape[1]], ring[:, far + near :])
            mean = now.mean(dim=1)
            spread = (now - mean.unsqueeze(1)).square().mean(dim=1).sqrt()
            steady = torch.stack([level, level - beside, mean - level, now.amin(dim=1) - level, spread], dim=1)
            return now[:, :, :: self.STEP_HZ].unsqueeze(1), steady

    def _decibels(self, spectrum: torch.Tensor) -> torch.Tensor:
        return 10.0 * torch.log10(_power(spectrum).clamp(min=self.floor))


def _power(spectrum: torch.Tensor) -> torch.Tensor:
    """Squared magnitude. Squares of all numbers in a row: `real` and `imag`, every other one, take half as long again."""
    squares = torch.view_as_real(spectrum).square()
    return squares[..., 0] + squares[..., 1]


def _reflected(samples: torch.Tensor, count: int) -> torch.Tensor:
    """Samples (b, n) with `count` more at both ends, as reflection padding, which takes five times as long on a CPU."""
    before, after = samples[:, 1 : count + 1], samples[:, -count - 1 : -1]
    return torch.cat([before.flip(1), samples, after.flip(1)], dim=1)


def _wrapped(samples: torch.Tensor, length: int) -> torch.Tensor:
    """Samples (b, n) laid over one another every `length` (b, length): their spectrum in that many steps."""
    return functional.pad(samples, (0, -samples.shape[1] % length)).view(len(samples), -1, length).sum(dim=1)


def whiten(spectrum: torch.Tensor, samples: int, smooth: int = 256) -> torch.Tensor:
    """The waveform with a flat spectrum, in which what no neighbouring sample foretells (a click) stands out.

    Args:
        spectrum: (b, n // 2 + 1) of a waveform of n samples (`torch.fft.rfft`).
        samples: n.
        smooth: bins over which the spectrum's envelope is taken.

    Returns:
        (b, n) with an RMS of about 1.
    """
    power = _power(spectrum)
    envelope = functional.avg_pool1d(power, smooth, ceil_mode=True, count_include_pad=False)
    # 60 dB under the average, a codec's empty bands stay empty.
    envelope = envelope + 1e-6 * envelope.mean(dim=1, keepdim=True) + 1e-12 * samples
    gain = functional.interpolate(torch.rsqrt(envelope).unsqueeze(1), power.shape[1], mode="linear").squeeze(1)
    return torch.fft.irfft(spectrum * gain, samples) * samples**0.5
