//! The logs of containers: files of lines, each behind its time, and how `kubectl logs` reads them.

use std::collections::HashSet;
use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tombolo_apiserver::{LogError, LogRequest, LogSource, LogStream};

use crate::state::LabDir;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How much is read at once.
const CHUNK: u64 = 64 << 10;

/// The logs of all containers of a lab.
pub struct Logs {
    lab: LabDir,
    running: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Logs {
    /// None yet.
    pub fn new(lab: LabDir) -> Self {
        Self {
            lab,
            running: Arc::default(),
        }
    }

    /// A container begins: where its output goes.
    pub fn start(&self, pod_uid: &str, container: &str) -> PathBuf {
        let path = self.path(pod_uid, container);
        self.running().insert(path.clone());
        path
    }

    /// A container has ended for good: whoever follows its log comes to an end.
    pub fn end(&self, pod_uid: &str, container: &str) {
        self.running().remove(&self.path(pod_uid, container));
    }

    /// Its pod is gone, and the log goes with it.
    pub fn remove(&self, pod_uid: &str, container: &str) {
        self.end(pod_uid, container);
        // There is none if the container never started.
        let _ = std::fs::remove_file(self.path(pod_uid, container));
    }

    fn path(&self, pod_uid: &str, container: &str) -> PathBuf {
        self.lab.log(&format!("pod-{pod_uid}-{container}"))
    }

    fn running(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSource for Logs {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        async move {
            let path = self.path(&request.uid, &request.container);
            let unreadable = |source: io::Error| LogError::Unreadable {
                pod: request.pod.clone(),
                container: request.container.clone(),
                source,
            };
            let mut file = match File::open(&path).await {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(LogError::Waiting {
                        pod: request.pod,
                        container: request.container,
                        why: "it has not said anything".to_owned(),
                    });
                }
                Err(error) => return Err(unreadable(error)),
            };
            let mut text = Vec::new();
            file.read_to_end(&mut text).await.map_err(unreadable)?;
            let whole = text
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            let begin = show(last_lines(&text[..whole], request.tail_lines), request.timestamps);
            let begin = stream::once(async move { Ok(begin.into()) });
            if !request.follow {
                return Ok(begin.boxed());
            }
            let follow = Follow {
                file,
                path,
                at: whole as u64,
                running: self.running.clone(),
            };
            let timestamps = request.timestamps;
            let rest = stream::try_unfold(follow, move |mut follow| async move {
                let lines = follow.next().await?;
                Ok(lines.map(|lines| (show(&lines, timestamps).into(), follow)))
            });
            Ok(begin.chain(rest).boxed())
        }
        .boxed()
    }
}

/// The part of a log that is still to come.
struct Follow {
    file: File,
    path: PathBuf,
    at: u64,
    running: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Follow {
    /// The next whole lines; `None` once the container has ended and all is read.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let running = self
                .running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&self.path);
            let mut text = Vec::new();
            self.file.seek(SeekFrom::Start(self.at)).await?;
            (&mut self.file).take(CHUNK).read_to_end(&mut text).await?;
            if let Some(end) = text.iter().rposition(|byte| *byte == b'\n') {
                text.truncate(end + 1);
                self.at += text.len() as u64;
                return Ok(Some(text));
            }
            if !running {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn last_lines(text: &[u8], count: Option<u64>) -> &[u8] {
    let Some(count) = count else { return text };
    let mut ends = text
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1);
    let from = ends
        .nth(usize::try_from(count).unwrap_or(usize::MAX))
        .unwrap_or(0);
    &text[from..]
}

/// Takes the times from whole lines, unless they are wanted.
fn show(text: &[u8], timestamps: bool) -> Vec<u8> {
    if timestamps {
        return text.to_owned();
    }
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let bare = lines.flat_map(|line| {
        let after = line.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
        &line[after..]
    });
    bare.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found() {
        let text = b"1 a\n2 b\n3 c\n";
        assert_eq!(last_lines(text, None), text);
        assert_eq!(last_lines(text, Some(0)), b"");
        assert_eq!(last_lines(text, Some(1)), b"3 c\n");
        assert_eq!(last_lines(text, Some(3)), text);
        assert_eq!(last_lines(text, Some(9)), text);
    }

    #[test]
    fn times_are_shown_only_when_wanted() {
        assert_eq!(show(b"1 a b\n2 c\n", false), b"a b\nc\n");
        assert_eq!(show(b"1 a b\n2 c\n", true), b"1 a b\n2 c\n");
    }
}
