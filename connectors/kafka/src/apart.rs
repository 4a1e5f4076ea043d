//! A client of the library whose end is waited for within a limit.
//!
//! Closing one takes half a second, and may never end if a broker was restarted meanwhile (librdkafka issues 4131 and
//! 4674): a commit would hang behind a producer that nobody needs any more. So it is closed on a thread of its own, and
//! left to it if that takes long. What a client left open is fenced off by the one that follows it, not by its end.

use std::ops::Deref;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How long the end of a client is waited for.
const CLOSING: Duration = Duration::from_secs(2);

/// Derefs to the client.
#[derive(Debug)]
pub(crate) struct Apart<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Apart<T> {
    pub fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(client) => client,
            None => unreachable!("only its drop takes the client"),
        }
    }
}

impl<T: Send + 'static> Drop for Apart<T> {
    fn drop(&mut self) {
        let Some(client) = self.0.take() else { return };
        let (done, end) = channel();
        let close = move || {
            drop(client);
            // Nobody hears it if it took too long.
            let _ = done.send(());
        };
        // Not one of the threads that a job waits for at its end.
        match thread::Builder::new().name("kafka-close".into()).spawn(close) {
            Ok(_) if end.recv_timeout(CLOSING).is_ok() => {}
            Ok(_) => tracing::warn!(
                "a Kafka client has not closed in {CLOSING:?}; it is left to itself (a broker was restarted?)"
            ),
            // It was closed here.
            Err(error) => tracing::warn!(%error, "no thread to close a Kafka client"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    struct Slow {
        gate: Receiver<()>,
        closed: Sender<()>,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            self.gate.recv().unwrap();
            self.closed.send(()).unwrap();
        }
    }

    #[test]
    fn a_client_that_does_not_close_keeps_nobody_waiting_for_long() {
        let ((open, gate), (closed, seen)) = (channel(), channel());
        drop(Apart::new(Slow { gate, closed }));
        // Only now it can close.
        open.send(()).unwrap();
        seen.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
