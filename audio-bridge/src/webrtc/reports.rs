//! Picks the loss of our stream out of the node's receiver reports. The media library reads them for itself and tells nobody;
//! this sits at the end of its chain, looks, and passes everything on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

/// Nearest to the application: everybody else has seen the packet.
pub(super) const SLOT: usize = 14_000;
/// No report came yet.
const NONE: u32 = u32::MAX;

/// The share of packets that the node missed, as its last report says.
#[derive(Clone, Debug)]
pub(super) struct Loss(Arc<AtomicU32>);

impl Default for Loss {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(NONE)))
    }
}

impl Loss {
    /// 0 to 1.
    pub(super) fn fraction(&self) -> Option<f64> {
        let fraction = self.0.load(Ordering::Relaxed);
        (fraction != NONE).then(|| f64::from(fraction) / 256.0)
    }
}

pub(super) struct Reports {
    ssrc: u32,
    loss: Loss,
    inbound: VecDeque<TaggedPacket>,
    outbound: VecDeque<TaggedPacket>,
}

impl Reports {
    pub(super) fn new(ssrc: u32, loss: Loss) -> Self {
        Self { ssrc, loss, inbound: VecDeque::new(), outbound: VecDeque::new() }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Reports {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, msg: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &msg.message.packet {
            let reports = packets.iter().filter_map(|packet| packet.as_any().downcast_ref::<ReceiverReport>());
            let ours = reports.flat_map(|report| &report.reports).filter(|block| block.ssrc == self.ssrc);
            for block in ours {
                self.loss.0.store(u32::from(block.fraction_lost), Ordering::Relaxed);
            }
        }
        self.inbound.push_back(msg);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inbound.pop_front()
    }

    fn handle_write(&mut self, msg: TaggedPacket) -> Result<(), Error> {
        self.outbound.push_back(msg);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outbound.pop_front()
    }
}

impl Interceptor for Reports {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
