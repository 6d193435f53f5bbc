//! Time to seal and to open one packet, by profile and size. `cargo bench -p srtp`; under `cargo test --benches` it
//! runs a few packets only, to stay alive.
//!
//! The bar for the whole forward path is 200 ns a packet of 100 bytes with AES-GCM outside system calls, of which the
//! bare seal is about 125 ns (`FLOOR`, measured beside it).

#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use srtp::{Half, OVERHEAD_BYTES_MAX, Opener, Profile, RtpHeader, Sealer};

const HEADER_BYTES: usize = 20;
const PACKETS_A_BATCH: u64 = 2_000;

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let batches = if is_bench { 200 } else { 1 };
    println!("ns per packet, best of {batches} batches of {PACKETS_A_BATCH}");
    println!("{:<24} {:>6} {:>8} {:>8}", "profile", "bytes", "seal", "open");
    for bytes in [100, 1_200] {
        println!("{:<24} {bytes:>6} {:>8.1} {:>8}", "FLOOR AES-128-GCM", floor(bytes, batches), "-");
        for profile in Profile::ALL {
            let (seal, open) = measure(profile, bytes, batches);
            println!("{:<24} {bytes:>6} {seal:>8.1} {open:>8.1}", profile.name());
        }
    }
}

/// Best time of a batch of seals (each with the copy that a fan-out makes) and of opens.
fn measure(profile: Profile, bytes: usize, batches: usize) -> (f64, f64) {
    let half =
        Half::new(profile, &[1; 32][..profile.key_len()], &[2; 14][..profile.salt_len()]).expect("lengths fit");
    let mut sealer = Sealer::new(profile, &half).expect("keys fit");
    let mut opener = Opener::new(profile, &half, 1).expect("keys fit");
    let rendered = rendered(bytes);
    let slot = bytes + OVERHEAD_BYTES_MAX;
    let mut out = vec![0; slot * PACKETS_A_BATCH as usize];
    let (mut seal, mut open) = (Duration::MAX, Duration::MAX);
    let mut index = 0;
    for _ in 0..batches {
        let start = Instant::now();
        for packet in out.chunks_exact_mut(slot) {
            index += 1;
            packet[..bytes].copy_from_slice(&rendered);
            packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
            black_box(sealer.seal_rtp(packet, HEADER_BYTES, bytes, index).expect("sealed"));
        }
        seal = seal.min(start.elapsed());
        let sealed_len = bytes + profile.tag_len();
        let start = Instant::now();
        for packet in out.chunks_exact_mut(slot) {
            let packet = &mut packet[..sealed_len];
            let header = RtpHeader::parse(packet).expect("valid");
            black_box(opener.open_rtp(packet, &header).expect("authentic"));
        }
        open = open.min(start.elapsed());
    }
    (per_packet(seal), per_packet(open))
}

/// The cipher alone, with the same copy: what no SRTP implementation on it can beat.
fn floor(bytes: usize, batches: usize) -> f64 {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[1; 16]).expect("length fits"));
    let rendered = rendered(bytes);
    let slot = bytes + OVERHEAD_BYTES_MAX;
    let mut out = vec![0; slot * PACKETS_A_BATCH as usize];
    let mut best = Duration::MAX;
    for _ in 0..batches {
        let start = Instant::now();
        for (n, packet) in out.chunks_exact_mut(slot).enumerate() {
            packet[..bytes].copy_from_slice(&rendered);
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&n.to_be_bytes());
            let (header, rest) = packet.split_at_mut(HEADER_BYTES);
            let (payload, tag) = rest.split_at_mut(bytes - HEADER_BYTES);
            let nonce = Nonce::assume_unique_for_key(nonce);
            black_box(key.seal_in_place_scatter(nonce, Aad::from(&*header), payload, &[], &mut tag[..16]))
                .expect("sealed");
        }
        best = best.min(start.elapsed());
    }
    per_packet(best)
}

/// A packet with an 8-byte extension block, as clients that send audio levels make it.
fn rendered(bytes: usize) -> Vec<u8> {
    let mut packet = vec![0x55; bytes];
    packet[..2].copy_from_slice(&[0x90, 0x6F]);
    packet[12..HEADER_BYTES].copy_from_slice(&[0xBE, 0xDE, 0, 1, 0x10, 0x7F, 0, 0]);
    packet
}

fn per_packet(batch: Duration) -> f64 {
    batch.as_secs_f64() * 1e9 / PACKETS_A_BATCH as f64
}
