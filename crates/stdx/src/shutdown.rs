//! One signal that ends every loop of the process.

use tokio::sync::watch;

/// The side that ends it. Dropping it ends it too.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<bool>);

/// The side that waits.
#[derive(Clone, Debug)]
pub struct ShutdownSignal(watch::Receiver<bool>);

impl Shutdown {
    pub fn new() -> (Shutdown, ShutdownSignal) {
        let (sender, receiver) = watch::channel(false);
        (Shutdown(sender), ShutdownSignal(receiver))
    }

    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl ShutdownSignal {
    pub fn begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves once shutdown begins.
    pub async fn wait(&mut self) {
        // An error means that the other side is gone, which ends it as well.
        let _ended = self.0.wait_for(|begun| *begun).await;
    }
}
