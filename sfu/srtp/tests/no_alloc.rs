//! Packets are sealed and opened without the heap, first packets of new SSRCs included.

use allocation_counter::measure;
use srtp::{Half, Opener, Profile, RtpHeader, Sealer};

#[test]
fn sealing_and_opening_allocate_nothing() {
    for profile in Profile::ALL {
        let half =
            Half::new(profile, &vec![1; profile.key_len()], &vec![2; profile.salt_len()]).expect("right length");
        let mut sealer = Sealer::new(profile, &half).expect("right keys");
        let mut opener = Opener::new(profile, &half, 8).expect("right keys");
        let info = measure(|| {
            for ssrc in 0..8 {
                let mut packet = [0; 140];
                packet[0] = 0x80;
                packet[11] = ssrc;
                let len = sealer.seal_rtp(&mut packet, 12, 100, 0).expect("sealed");
                let header = RtpHeader::parse(&packet[..len]).expect("valid");
                opener.open_rtp(&mut packet[..len], &header).expect("authentic");
                opener.open_rtp(&mut packet[..len], &header).expect_err("replayed");
                let mut packet = [0; 140];
                packet[7] = ssrc;
                let len = sealer.seal_rtcp(&mut packet, 100).expect("sealed");
                opener.open_rtcp(&mut packet[..len]).expect("authentic");
                opener.open_rtcp(&mut packet[..len]).expect_err("replayed");
            }
        });
        assert_eq!(info.count_total, 0, "{profile:?}");
    }
}
