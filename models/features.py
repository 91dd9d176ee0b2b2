"""The log-mel front end, part of every network that listens to spectra."""

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
    """What a spectrogram does not show: peaks, jumps and flat tops of the waveform, frame by frame.

    Shapes: b = batch, n = samples, t = ceil(n / frame), all in float32. Levels are logarithms, so that a gain only
    shifts them; "flat" counts are shares of the frame's samples.

    Args:
        frame: samples of one frame; frames do not overlap.
    """

    features = 13

    def __init__(self, frame: int = 512) -> None:
        super().__init__()
        self.frame = frame

    @torch.no_grad()
    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Turn (b, n) samples into (b, features, t)."""
        with torch.autocast(waveform.device.type, enabled=False):
            x = functional.pad(waveform.float(), (0, -waveform.shape[1] % self.frame))
            # A few segments at a time keep a CPU in its cache, which nearly doubles the speed.
            few = x.split(4) if x.device.type == "cpu" else (x,)
            return torch.cat([self._describe(part) for part in few])

    def _describe(self, x: torch.Tensor) -> torch.Tensor:
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
        near, top, flat = size > 0.98 * frame_peak.unsqueeze(2), size > 0.9 * peak_f, step < 2e-3 * peak_f
        levels = [
            frame_peak,
            torch.linalg.vector_norm(size, dim=2) / self.frame**0.5,
            step.amax(dim=2),
            step.mean(dim=2),
            bend.amax(dim=2),
            bend.mean(dim=2),
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
