"""How recordings sound against what was played:  score.py music|speech REFERENCE.wav RECORDING.wav
Finds the reference in the recording, cuts it out and prints its score: ViSQOL (audio, 48 kHz) for music, PESQ (wide band)
for speech, both from 1 to about 4.7."""

import sys
import wave

import numpy


def read(path):
    with wave.open(path) as file:
        assert file.getframerate() == 48000, path
        samples = numpy.frombuffer(file.readframes(file.getnframes()), numpy.int16).reshape(-1, file.getnchannels())
    return samples.mean(axis=1) / 32768


def cut(recording, reference):
    """The part of the recording that is most like the reference."""
    size = 1 << (len(recording) + len(reference)).bit_length()
    likeness = numpy.fft.irfft(numpy.fft.rfft(recording, size) * numpy.conj(numpy.fft.rfft(reference, size)), size)
    start = int(numpy.argmax(likeness[: max(1, len(recording) - len(reference) + 1)]))
    return recording[start : start + len(reference)]


def third(samples):
    """48 kHz to 16 kHz: a windowed sinc, then every third sample."""
    n = numpy.arange(-192, 193)
    kernel = numpy.sinc(n * 0.3) * numpy.blackman(len(n)) * 0.3
    return numpy.convolve(samples, kernel, "same")[::3]


def main(kind, reference, recording):
    reference = read(reference)
    found = cut(read(recording), reference)
    if kind == "music":
        from visqol import VisqolApi

        api = VisqolApi()
        api.create(mode="audio")
        return api.measure_from_arrays(reference, found, 48000).moslqo
    from pesq import pesq

    return pesq(16000, third(reference), third(found), "wb")


if __name__ == "__main__":
    print(round(float(main(*sys.argv[1:])), 3))
