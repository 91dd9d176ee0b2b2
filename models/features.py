"""The log-mel front end, part of every network that listens to spectra."""

import torch
from torch import nn
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
