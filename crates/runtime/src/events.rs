//! What happens to containers, told to whoever listens, so that nobody has to ask again and again.

use rpc::cri::ContainerEventResponse;
use std::pin::Pin;
use tokio::sync::broadcast;
use tokio_stream::Stream;
use tonic::Status;

/// A listener that is behind by more than this hears that it must look for itself.
const BEHIND_MAX: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<ContainerEventResponse>);

pub(crate) type EventStream =
    Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

impl Events {
    pub(crate) fn new() -> Events {
        Events(broadcast::channel(BEHIND_MAX).0)
    }

    pub(crate) fn tell(&self, event: ContainerEventResponse) {
        // Nobody listening is fine.
        let _heard = self.0.send(event);
    }

    pub(crate) fn listened_to(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Ends with DATA_LOSS when the listener was too slow: it then lists and listens anew.
    pub(crate) fn listen(&self) -> EventStream {
        let next = |receiver: Option<broadcast::Receiver<ContainerEventResponse>>| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), Some(receiver))),
                Err(broadcast::error::RecvError::Closed) => None,
                Err(broadcast::error::RecvError::Lagged(missed)) => Some((
                    Err(Status::data_loss(format!("{missed} container events were missed"))),
                    None,
                )),
            }
        };
        Box::pin(futures_util::stream::unfold(Some(self.0.subscribe()), next))
    }
}
