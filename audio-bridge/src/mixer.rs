//! Adds voices into one mono signal, each with its own gain. Saturates: two loud voices clip, they do not wrap around.

#[derive(Debug, Default)]
pub struct Mixer {
    sum: Vec<f32>,
}

impl Mixer {
    /// Starts a mix of `len` samples.
    pub fn begin(&mut self, len: usize) {
        self.sum.clear();
        self.sum.resize(len, 0.0);
    }

    /// Adds one voice; samples beyond the length of the mix are ignored.
    pub fn add(&mut self, voice: &[i16], gain: f32) {
        for (sum, &sample) in self.sum.iter_mut().zip(voice) {
            *sum += f32::from(sample) * gain;
        }
    }

    /// Writes the mix. `out` beyond its length becomes silence.
    pub fn finish(&self, out: &mut [i16]) {
        out.fill(0);
        for (out, &sum) in out.iter_mut().zip(&self.sum) {
            // A float cast saturates at the limits of i16.
            *out = sum.round() as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(voices: &[(&[i16], f32)]) -> Vec<i16> {
        let mut mixer = Mixer::default();
        mixer.begin(3);
        for (voice, gain) in voices {
            mixer.add(voice, *gain);
        }
        let mut out = vec![99; 3];
        mixer.finish(&mut out);
        out
    }

    #[test]
    fn one_voice_passes_bit_exact() {
        assert_eq!(mixed(&[(&[i16::MIN, -1, i16::MAX], 1.0)]), [i16::MIN, -1, i16::MAX]);
    }

    #[test]
    fn loud_voices_clip_instead_of_wrapping() {
        let loud: &[i16] = &[30_000, -30_000, 1];
        assert_eq!(mixed(&[(loud, 1.0), (loud, 1.0)]), [i16::MAX, i16::MIN, 2]);
    }

    #[test]
    fn gain_is_per_voice() {
        assert_eq!(mixed(&[(&[1000, 1000, 1000], 0.5), (&[100, 100, 100], 0.0), (&[10], 2.0)]), [520, 500, 500]);
    }

    #[test]
    fn without_voices_there_is_silence() {
        assert_eq!(mixed(&[]), [0, 0, 0]);
    }
}
