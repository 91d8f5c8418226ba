//! Notices who opens credential files, for the audit log: inotify on the current folder, summed up each second.
//!
//! The volume is one file system for both containers, so an open in the agent's container shows here.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use crate::gateway::protocol::Event;
use crate::gateway::report::Reporter;

/// How often opens are reported, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// An inotify instance.
#[derive(Debug)]
pub struct ReadWatch(AsyncFd<OwnedFd>);

impl ReadWatch {
    /// Starts without a folder.
    pub fn new() -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps the promise that it asks for")]
        let descriptor = AsyncFd::new(descriptor)?;
        Ok(Self(descriptor))
    }

    /// Watches a folder too. The watch ends when the folder is removed.
    pub fn add(&self, folder: &Path) -> io::Result<()> {
        inotify::add_watch(self.0.get_ref(), folder, WatchFlags::OPEN | WatchFlags::ONLYDIR)?;
        Ok(())
    }

    /// Reports opens until the launcher is gone or reading fails.
    pub async fn report(&self, reporter: &Reporter) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let counts = collect(self.0.get_ref())?;
            ready.clear_ready();
            for (name, count) in counts {
                if !reporter.send(Event::SecretRead { name, count }).await {
                    return Ok(());
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

fn collect(descriptor: &OwnedFd) -> io::Result<BTreeMap<String, u64>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    let mut counts = BTreeMap::new();
    loop {
        match reader.next() {
            // Events of the folder itself have no name.
            Ok(event) => {
                if let Some(name) = event.file_name() {
                    *counts.entry(name.to_string_lossy().into_owned()).or_insert(0) += 1;
                }
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(counts),
            Err(error) => return Err(error.into()),
        }
    }
}
