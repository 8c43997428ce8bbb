//! Clients that ask over and over, each time by a new connection, none of which may fail.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::asking::{Client, Protocol};
use super::{Lab, eventually};

/// How long one request may take: longer than one lost packet costs.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause between requests, since other tests want the machine, too.
const PAUSE: Duration = Duration::from_millis(1);

/// A client at work.
pub struct Load {
    end: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    work: JoinHandle<Result<IpAddr, String>>,
}

impl Load {
    /// Begins to ask each of the targets in turn, once all of them have answered.
    #[track_caller]
    pub fn start(lab: &Lab, client: &Client, targets: Vec<SocketAddr>) -> Self {
        for to in &targets {
            client.ask_until_answered(lab, Protocol::Tcp, *to);
        }
        let (end, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = client.try_clone().unwrap();
        let (told, count) = (end.clone(), asked.clone());
        let work = move || {
            let mut last = Err("nobody was asked".to_owned());
            for to in targets.iter().cycle() {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                match client.ask_within(Protocol::Tcp, *to, PATIENCE) {
                    Ok(seen) => last = Ok(seen.server.ip()),
                    Err(error) => return Err(format!("{to}: {error}")),
                }
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
            last
        };
        let work = thread::spawn(work);
        Self { end, asked, work }
    }

    /// Waits until a hundred more have been answered, or one has failed.
    #[track_caller]
    pub fn wait_for_more(&self) {
        let before = self.asked.load(Ordering::Relaxed);
        eventually("a hundred more answers", 30, || {
            let enough = self.asked.load(Ordering::Relaxed) >= before + 100;
            (enough || self.work.is_finished()).then_some(())
        });
    }

    /// Ends it; returns who answered last. None has failed.
    #[track_caller]
    pub fn finish(self, lab: &Lab) -> IpAddr {
        self.end.store(true, Ordering::Relaxed);
        let asked = self.asked.load(Ordering::Relaxed);
        let done = self.work.join().unwrap();
        done.unwrap_or_else(|why| panic!("after {asked} answers, {why}\n{}", lab.datapath()))
    }
}
