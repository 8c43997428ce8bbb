//! How the end of the server reaches everything that would otherwise go on.

use tokio::sync::watch;

/// Ends the server when it is dropped or told to.
#[derive(Debug)]
pub struct Closer(watch::Sender<bool>);

/// Knows when the server ends.
#[derive(Clone, Debug)]
pub struct Closing(watch::Receiver<bool>);

/// The two ends of a server's life.
pub fn closing() -> (Closer, Closing) {
    let (sender, receiver) = watch::channel(false);
    (Closer(sender), Closing(receiver))
}

impl Closer {
    /// Ends the server.
    pub fn close(&self) {
        self.0.send_replace(true);
    }
}

impl Closing {
    /// Waits for the end of the server.
    pub async fn wait(&mut self) {
        // An error means that the closer is gone, and the server with it.
        let _ = self.0.wait_for(|closed| *closed).await;
    }
}
