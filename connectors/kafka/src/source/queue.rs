//! The queue of one partition in the client library: all that is unsafe about reading.
//!
//! Promises that taking never waits, that the bell is rung when something comes into an empty queue, and that nothing of
//! the library is used after it is gone. The safe wrapper of the library hands out one record a call and hides where a
//! partition ends; this takes hundreds a call and sees both.

use super::client::Client;
use rdkafka::bindings as raw;
use rdkafka::error::RDKafkaErrorCode;
use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// Calls the last waker that was given, once.
#[derive(Debug, Default)]
pub(super) struct Bell(Mutex<Option<Waker>>);

impl Bell {
    pub fn set(&self, waker: &Waker) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    pub fn ring(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The queue of one partition, apart from that of the client.
pub(super) struct Queue {
    queue: *mut raw::rd_kafka_queue_t,
    bell: Arc<Bell>,
    // Dropped last: the library must outlive its queue.
    client: Arc<Client>,
}

// SAFETY: the library's queues may be used by any thread, and one at a time uses this one (`&mut self`).
unsafe impl Send for Queue {}

impl Queue {
    /// The queue of a partition; must be made before the partition is assigned, or some of it goes elsewhere.
    pub fn new(client: Arc<Client>, topic: &str, partition: i32) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        let bell = Arc::new(Bell::default());
        // SAFETY: the client lives as long as this; the bell is told to the library until `drop`, and lives longer.
        let queue = unsafe {
            let queue = raw::rd_kafka_queue_get_partition(client.native(), topic.as_ptr(), partition);
            if queue.is_null() {
                return None;
            }
            raw::rd_kafka_queue_forward(queue, ptr::null_mut());
            raw::rd_kafka_queue_cb_event_enable(queue, Some(ring), Arc::as_ptr(&bell).cast_mut().cast());
            queue
        };
        client.listen(&bell);
        Some(Self { queue, bell, client })
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Takes up to so many of what is there now.
    pub fn take(&mut self, most: usize) -> Taken {
        let mut messages = vec![ptr::null_mut(); most];
        // SAFETY: there is room for so many pointers. What is written there is ours to destroy.
        let count = unsafe { raw::rd_kafka_consume_batch_queue(self.queue, 0, messages.as_mut_ptr(), most) };
        messages.truncate(usize::try_from(count).unwrap_or(0));
        Taken(messages)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: once the callback is taken away, under the lock of the queue, the bell is not rung any more.
        unsafe {
            raw::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            raw::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// Called by the library, on its threads, with the queue locked.
unsafe extern "C" fn ring(_client: *mut raw::rd_kafka_t, bell: *mut c_void) {
    // SAFETY: it is the bell of a queue that is not dropped yet.
    unsafe { &*bell.cast::<Bell>() }.ring();
}

/// What was taken, to be given back when it is dropped.
pub(super) struct Taken(Vec<*mut raw::rd_kafka_message_t>);

impl Taken {
    pub fn messages(&self) -> impl Iterator<Item = &raw::rd_kafka_message_t> {
        // SAFETY: the library gave valid messages, which live until `drop`.
        self.0.iter().map(|message| unsafe { &**message })
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for message in &self.0 {
            // SAFETY: each once.
            unsafe { raw::rd_kafka_message_destroy(*message) };
        }
    }
}

/// What a message is that is no record.
pub(super) enum Event {
    /// Everything before this offset was given.
    End(i64),
    Error(RDKafkaErrorCode, String),
}

/// None for a record.
pub(super) fn event(message: &raw::rd_kafka_message_t) -> Option<Event> {
    use raw::rd_kafka_resp_err_t as code;
    match message.err {
        code::RD_KAFKA_RESP_ERR_NO_ERROR => None,
        code::RD_KAFKA_RESP_ERR__PARTITION_EOF => Some(Event::End(message.offset)),
        error => {
            // SAFETY: the text belongs to the message.
            let text = unsafe {
                let text = raw::rd_kafka_message_errstr(message);
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            };
            Some(Event::Error(error.into(), text.unwrap_or_default()))
        }
    }
}
