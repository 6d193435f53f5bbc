//! Makes a piece of speech a little shorter or longer without changing its pitch: the best-matching period between
//! 2.5 and 10 ms is cut out or played twice, joined by a cross-fade. This is how a voice's delay is brought back after
//! a burst and how the drift of two clocks is taken up.

use std::collections::VecDeque;

const OVERLAP: usize = 240;
const LAG_MIN: usize = 120;
const LAG_MAX: usize = 480;
/// Every fourth sample is enough to find a period, at a sixteenth of the cost.
const STEP: usize = 4;
/// Less sound than this cannot be stretched.
pub const SAMPLES_MIN: usize = OVERLAP + LAG_MAX;

/// Cuts one period out at the front. Says how many samples went; zero when there is too little sound.
pub fn shorten(sound: &mut VecDeque<i16>) -> usize {
    if sound.len() < SAMPLES_MIN {
        return 0;
    }
    let x = sound.make_contiguous();
    let lag = best_lag(x);
    let joined: Vec<i16> = (0..OVERLAP).map(|n| fade(x[n], x[n + lag], n)).collect();
    sound.drain(..lag);
    for (sample, joined) in sound.iter_mut().zip(joined) {
        *sample = joined;
    }
    lag
}

/// Plays one period at the front twice. Says how many samples came.
pub fn lengthen(sound: &mut VecDeque<i16>) -> usize {
    if sound.len() < SAMPLES_MIN {
        return 0;
    }
    let x = sound.make_contiguous();
    let lag = best_lag(x);
    let joined: Vec<i16> = (0..OVERLAP).map(|n| fade(x[n + lag], x[n], n)).collect();
    let first: Vec<i16> = x[..lag].to_vec();
    for (sample, joined) in sound.iter_mut().zip(joined) {
        *sample = joined;
    }
    for &sample in first.iter().rev() {
        sound.push_front(sample);
    }
    lag
}

fn fade(from: i16, to: i16, n: usize) -> i16 {
    let weight = n as f32 / OVERLAP as f32;
    (f32::from(from) * (1.0 - weight) + f32::from(to) * weight).round() as i16
}

/// The lag at which the sound looks most like itself.
fn best_lag(x: &[i16]) -> usize {
    let mut best = (LAG_MAX, f32::MIN);
    for lag in LAG_MIN..=LAG_MAX {
        let (mut product, mut energy) = (0.0_f32, 1.0_f32);
        for n in (0..OVERLAP).step_by(STEP) {
            let (a, b) = (f32::from(x[n]), f32::from(x[n + lag]));
            product += a * b;
            energy += b * b;
        }
        let likeness = product / energy.sqrt();
        if likeness > best.1 {
            best = (lag, likeness);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(samples: usize) -> VecDeque<i16> {
        (0..samples).map(|n| (8000.0 * (n as f32 / 48_000.0 * 200.0 * std::f32::consts::TAU).sin()) as i16).collect()
    }

    /// The largest step between neighbours: a 200 Hz tone of this level has steps below 220.
    fn largest_step(sound: &VecDeque<i16>) -> i32 {
        sound.iter().zip(sound.iter().skip(1)).map(|(&a, &b)| (i32::from(a) - i32::from(b)).abs()).max().unwrap_or(0)
    }

    #[test]
    fn a_tone_is_shortened_by_whole_periods_without_a_click() {
        let mut sound = tone(2000);
        let removed = shorten(&mut sound);
        assert_eq!((removed % 240, sound.len()), (0, 2000 - removed));
        assert!(largest_step(&sound) < 260, "step of {}", largest_step(&sound));
    }

    #[test]
    fn a_tone_is_lengthened_by_whole_periods_without_a_click() {
        let mut sound = tone(2000);
        let added = lengthen(&mut sound);
        assert!(added > 0);
        assert_eq!((added % 240, sound.len()), (0, 2000 + added));
        assert!(largest_step(&sound) < 260, "step of {}", largest_step(&sound));
    }

    #[test]
    fn too_little_sound_is_left_alone() {
        let mut sound = tone(SAMPLES_MIN - 1);
        assert_eq!((shorten(&mut sound), lengthen(&mut sound), sound.len()), (0, 0, SAMPLES_MIN - 1));
    }
}
