//! Steps of a climb, and the floor after a run: what a run may measure besides its one window.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::bare::{self, AROUND_PAYLOAD_BYTES, Order};
use super::conductor::{Conductor, Stage};
use crate::results::{Floor, Phase, Step};
use crate::scenario::Climb;

/// Until all workers have handed over what belongs to the phase that has ended.
const HAND_OVER: Duration = Duration::from_millis(60);

impl Conductor {
    /// Listeners step by step, until a limit breaks twice in a row, nobody new gets in, or all are there.
    pub(super) async fn climb(&mut self, stage: &mut Stage<'_>) -> Vec<Step> {
        let climb = self.scenario.climb.clone();
        let publishers = self.plan.iter().take_while(|planned| planned.link.publishes).count();
        let mut steps: Vec<Step> = Vec::new();
        let mut limit = publishers;
        while limit < self.plan.len() && !self.is_interrupted {
            limit += climb.step_listeners as usize;
            let before = self.book.connected_now();
            self.enter(Phase::Ramp, None);
            if steps.last().and_then(|step| step.server_cores).is_some_and(|cores| cores >= BUSY_CORES) {
                // A busy node takes nobody new, and what is sought is where it breaks: they join in silence.
                self.setting.board.let_talk(false);
                tokio::time::sleep(CALM).await;
            }
            self.ramp(stage, limit).await;
            self.setting.board.let_talk(true);
            let mut step = self.step(stage, &climb, publishers).await;
            if !step.holds && !self.is_interrupted {
                // Once more: a machine with other work on it has bad moments.
                steps.push(step);
                step = self.step(stage, &climb, publishers).await;
            }
            let goes_on = step.holds && self.book.connected_now() > before;
            steps.push(step);
            if !goes_on {
                break;
            }
        }
        // The window that follows is for those who are there now.
        self.next = self.plan.len();
        steps
    }

    async fn step(&mut self, stage: &mut Stage<'_>, climb: &Climb, publishers: usize) -> Step {
        self.enter(Phase::Warmup, Some(climb.settle_s));
        self.hold(stage).await;
        self.setting.board.forget(Phase::Measure);
        self.enter(Phase::Measure, Some(climb.hold_s));
        let window = self.sampler.begin_window();
        self.hold(stage).await;
        self.enter(Phase::Ramp, None);
        let (seconds, server, client) = self.sampler.end_window(&window);
        tokio::time::sleep(HAND_OVER).await;
        let media = self.setting.board.tally_of(Phase::Measure).media(seconds, None);
        self.setting.board.forget(Phase::Measure);
        let holds = media.received > 0
            && media.loss_share <= climb.loss_max
            && media.delay_ms.p99 <= climb.delay_p99_ms_max
            // What the node sheds before it numbers it leaves no gap.
            && media.delivered_share >= 1.0 - climb.loss_max.max(IN_FLIGHT_SHARE);
        Step {
            listeners: self.book.connected_now().saturating_sub(publishers as u64),
            failed: self.book.joins().failed,
            received_per_s: media.received_per_s,
            loss_share: media.loss_share,
            delivered_share: media.delivered_share,
            delay_p50_ms: media.delay_ms.p50,
            delay_p99_ms: media.delay_ms.p99,
            send_late_p99_ms: media.send_late_ms.p99,
            server_cores: server.as_ref().map(|server| server.cores_used),
            server_rss_mib: server.as_ref().map(|server| server.rss_end_mib),
            client_cores: client.cores_used,
            holds,
        }
    }

    /// The same datagrams to the same sockets without a node between; publishers are silent meanwhile.
    pub(super) async fn floor(&mut self, server_per_cpu_s: Option<f64>) -> io::Result<Floor> {
        let hears = |link: usize| self.plan[link].link.slots > 0;
        let hearers: Vec<SocketAddr> =
            self.book.addresses().filter(|(link, _)| hears(*link)).map(|(_, address)| address).collect();
        let frames = &self.setting.frames;
        let order = Order {
            hearers,
            publishers: self.scenario.rooms.publishers,
            frame_us: u64::from(self.scenario.audio.frame_ms) * 1000,
            sizes: (0..frames.len()).map(|at| frames.talk(at).packet.len() + AROUND_PAYLOAD_BYTES).collect(),
            seconds: self.scenario.run.floor_s,
        };
        self.setting.board.forget(Phase::Measure);
        self.enter(Phase::Measure, Some(order.seconds));
        let sent = bare::send_apart(&order).await;
        // What is still in the queues of the sockets.
        tokio::time::sleep(HAND_OVER).await;
        self.enter(Phase::Drain, None);
        tokio::time::sleep(HAND_OVER).await;
        let sent = sent?;
        let received = self.setting.board.tally_of(Phase::Measure).counts.received;
        let cpu_s = sent.cpu_user_s + sent.cpu_system_s;
        let per_cpu_s = if cpu_s > 0.0 { received as f64 / cpu_s } else { 0.0 };
        Ok(Floor {
            sent: sent.datagrams,
            received,
            cpu_user_s: sent.cpu_user_s,
            cpu_system_s: sent.cpu_system_s,
            per_cpu_s,
            ratio: server_per_cpu_s.filter(|_| per_cpu_s > 0.0).map(|server| server / per_cpu_s),
        })
    }
}

/// From here on the joins of a step may take a node over its limit for new joins.
const BUSY_CORES: f64 = 0.5;
/// Until a node that looks at its last second has seen that it is idle.
const CALM: Duration = Duration::from_millis(1300);
/// Of a window of a second, one frame may be under way at its border.
const IN_FLIGHT_SHARE: f64 = 0.02;
