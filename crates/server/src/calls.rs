//! Calls that can be cancelled: by who made them, and by the id that their caller chose.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use units::CallId;

use crate::access::Maker;

type Key = (Maker, CallId);

/// The calls in flight that have an id; the sender is gone once a call was cancelled. Its key stays until its entry is dropped,
/// so that a later call with the same id does not lose its own to it.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<HashMap<Key, Option<oneshot::Sender<()>>>>>);

/// One call's entry; taken out when dropped.
pub(crate) struct Entry {
    calls: Calls,
    key: Key,
    cancelled: oneshot::Receiver<()>,
}

impl Calls {
    /// Enters a call. `None` when its maker has a call with this id already: only the first can be cancelled.
    pub(crate) fn enter(&self, maker: Maker, id: CallId) -> Option<Entry> {
        let (sender, cancelled) = oneshot::channel();
        let key = (maker, id);
        let mut calls = self.0.lock();
        if calls.contains_key(&key) {
            return None;
        }
        calls.insert(key.clone(), Some(sender));
        Some(Entry { calls: self.clone(), key, cancelled })
    }

    /// Cancels a call of this maker; an unknown id is ignored.
    pub(crate) fn cancel(&self, maker: Maker, id: CallId) {
        let sender = self.0.lock().get_mut(&(maker, id)).and_then(Option::take);
        if let Some(sender) = sender {
            // An error means that the call ended at this moment.
            let _ = sender.send(());
        }
    }
}

impl Entry {
    /// Resolves when the call is cancelled, and never otherwise.
    pub(crate) async fn cancelled(&mut self) {
        if (&mut self.cancelled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.calls.0.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use units::CallerId;

    use super::*;

    #[tokio::test]
    async fn only_who_called_can_cancel() {
        let (calls, id) = (Calls::default(), CallId([7; 16]));
        let [one, other] = [1, 2].map(Maker::Connection);
        let mut entry = calls.enter(one.clone(), id).expect("new");
        assert!(calls.enter(one.clone(), id).is_none());
        calls.cancel(other, id);
        calls.cancel(Maker::Caller(CallerId::verified("1")), id);
        assert!(futures_pending(&mut entry).await);
        calls.cancel(one.clone(), id);
        entry.cancelled().await;
        assert!(calls.enter(one.clone(), id).is_none(), "it has not ended yet");
        calls.cancel(one, id);
        drop(entry);
        assert!(calls.0.lock().is_empty());
    }

    async fn futures_pending(entry: &mut Entry) -> bool {
        tokio::select! {
            biased;
            () = entry.cancelled() => false,
            () = std::future::ready(()) => true,
        }
    }
}
