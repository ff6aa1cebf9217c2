//! Who and where: what the first argument of a site points to.

use crate::page::{self, Gauge, Labels, Page};
use crate::{GaugeId, Role, look, process, text};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ffi::CStr;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use streamhouse_abi::limits::{GROUP_BYTES_MAX, INSTANCE_ID_BYTES_MAX, TOPIC_BYTES_MAX};
use streamhouse_abi::{Owner, Scope as Layouts, ScopeHead};
#[cfg(feature = "metrics")]
use streamhouse_metrics::recorder::{self, Recorder, Subject};

/// One agent, producer or consumer. Cheap to clone.
#[derive(Clone)]
pub struct Instance {
    role: Role,
    owner: Arc<Owner>,
    #[cfg(feature = "metrics")]
    recorder: Option<Arc<Recorder>>,
}

impl Instance {
    /// Names an agent, producer or consumer, and makes the process's state page if it has none yet.
    ///
    /// `group` is a consumer's group, else empty. Strings are cut at the first NUL and, between characters, at the
    /// limits of [`streamhouse_abi::limits`]. Never fails: where a page cannot be made, gauges go nowhere.
    pub fn new(role: Role, instance_id: &str, group: &str) -> Instance {
        let mut owner =
            Owner { instance_id: [0; INSTANCE_ID_BYTES_MAX + 1], group: [0; GROUP_BYTES_MAX + 1] };
        text::store(&mut owner.instance_id, instance_id);
        text::store(&mut owner.group, group);
        let instance = Instance {
            role,
            owner: Arc::new(owner),
            #[cfg(feature = "metrics")]
            recorder: None,
        };
        instance.page();
        instance
    }

    /// Has what happens to this instance counted in `recorder` too, for a process that serves its metrics itself. The page
    /// says so from now on, and the probe leaves out whatever the process does: what else is in it has to be counted in
    /// a recorder as well, to be seen. `None` changes nothing.
    #[cfg(feature = "metrics")]
    pub fn recorded(mut self, recorder: Option<Arc<Recorder>>) -> Instance {
        if recorder.is_some() {
            self.recorder = recorder;
            crate::record::turn_on();
            self.page();
        }
        self
    }

    /// A scope of this instance, for the events of one partition; of a whole topic with `None`, of the instance itself
    /// with an empty topic besides. Make it once and keep it as long as what it describes: each is a row of its own in
    /// the kernel's maps.
    pub fn scope(&self, topic: &str, partition: Option<u32>) -> Scope {
        Scope::new(self, topic, partition)
    }

    /// Publishes a gauge on the process's state page, until it is dropped. It does nothing when the page is full (which
    /// the page counts) or could not be made.
    pub fn gauge(&self, gauge: GaugeId, topic: &str, partition: Option<u32>) -> Gauge {
        self.group_gauge(gauge, self.group(), topic, partition)
    }

    /// [`gauge`](Self::gauge) of a group that is not the instance's own: an agent publishes those of every group.
    pub fn group_gauge(&self, gauge: GaugeId, group: &str, topic: &str, partition: Option<u32>) -> Gauge {
        let labels = Labels { instance_id: self.instance_id(), group, topic, partition };
        let published = self.page().map_or_else(Gauge::default, |page| page.gauge(gauge, labels));
        #[cfg(feature = "metrics")]
        if let Some(recorder) = &self.recorder {
            return published.recorded(recorder.value(gauge, self.counted_as(group, topic, partition)));
        }
        published
    }

    #[cfg(feature = "metrics")]
    fn counted_as(&self, group: &str, topic: &str, partition: Option<u32>) -> recorder::Labels {
        let [instance_id, group, topic] = [self.instance_id(), group, topic].map(Box::from);
        recorder::Labels { role: self.role, instance_id, group, topic, partition }
    }

    /// The process's page; made now if there is none, as in a child forked since `new`.
    pub(crate) fn page(&self) -> Option<&'static Page> {
        let page = page::current(self.role, self.instance_id());
        #[cfg(feature = "metrics")]
        if let Some(page) = page.filter(|_| self.recorder.is_some()) {
            page.serves_metrics();
        }
        page
    }

    fn instance_id(&self) -> &str {
        text::load(&self.owner.instance_id)
    }

    fn group(&self) -> &str {
        text::load(&self.owner.group)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Instance");
        debug.field("role", &self.role).field("instance_id", &self.instance_id());
        debug.field("group", &self.group()).finish()
    }
}

/// What an event is about: the memory that a site's first argument points to, and a share of its [`Instance`].
///
/// One allocation: a [`ScopeHead`], then the topic and its NUL. The handle is one pointer, for there is a scope for
/// every partition.
pub struct Scope {
    head: NonNull<ScopeHead>,
    #[cfg(feature = "metrics")]
    subject: Option<Box<Subject>>,
}

// SAFETY: the memory is written before the scope exists and never again; it is freed by the last owner's drop, and the
// `Arc` it holds a count of is of plain bytes, which may be shared and sent.
unsafe impl Send for Scope {}
// SAFETY: as above.
unsafe impl Sync for Scope {}

impl Scope {
    fn new(instance: &Instance, topic: &str, partition: Option<u32>) -> Scope {
        let topic = text::cut(topic, TOPIC_BYTES_MAX);
        let head = ScopeHead {
            nonce: process::current().nonce,
            scope_id: process::next_scope_id(),
            owner: Arc::into_raw(Arc::clone(&instance.owner)).expose_provenance() as u64,
            partition: partition.unwrap_or(Layouts::NO_PARTITION),
            role: instance.role as u32,
        };
        let layout = layout(topic.len());
        // SAFETY: the layout is not empty, and large enough for the head, the topic and the NUL that are written.
        unsafe {
            let start = alloc(layout);
            let Some(at) = NonNull::new(start.cast::<ScopeHead>()) else { handle_alloc_error(layout) };
            at.write(head);
            let text = start.add(Layouts::TOPIC_OFFSET);
            text.copy_from_nonoverlapping(topic.as_ptr(), topic.len());
            text.add(topic.len()).write(0);
            Scope {
                head: at,
                #[cfg(feature = "metrics")]
                subject: instance.recorder.as_ref().map(|recorder| {
                    Box::new(recorder.subject(&instance.counted_as(instance.group(), topic, partition)))
                }),
            }
        }
    }

    /// What its events are counted in, if they are.
    #[cfg(feature = "metrics")]
    pub(crate) fn subject(&self) -> Option<&Subject> {
        self.subject.as_deref()
    }

    fn head(&self) -> &ScopeHead {
        // SAFETY: written in `new`, freed only in `drop`, never changed.
        unsafe { self.head.as_ref() }
    }

    fn owner(&self) -> *const Owner {
        std::ptr::with_exposed_provenance(self.head().owner as usize)
    }

    fn topic_c(&self) -> &CStr {
        // SAFETY: `new` wrote a topic without NULs and a NUL there.
        unsafe { CStr::from_ptr(self.head.as_ptr().cast::<u8>().add(Layouts::TOPIC_OFFSET).cast()) }
    }

    /// The topic; empty when the scope is the whole instance.
    pub fn topic(&self) -> &str {
        // SAFETY: `new` took it from a str.
        unsafe { std::str::from_utf8_unchecked(self.topic_c().to_bytes()) }
    }

    /// The partition, if the scope is of one.
    pub fn partition(&self) -> Option<u32> {
        let partition = self.head().partition;
        (partition != Layouts::NO_PARTITION).then_some(partition)
    }

    /// What a site passes, with every page of it resident. Reading up to the NUL touches the whole topic.
    pub(crate) fn touched(&self) -> *const u8 {
        look::touched(self.head());
        // SAFETY: `new` stored a count of an `Arc`, which only `drop` gives back.
        look::touched(unsafe { &*self.owner() });
        let topic = self.topic_c().to_bytes_with_nul();
        if let Some(nul) = topic.last() {
            look::touched(nul);
        }
        topic.as_ptr()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let layout = layout(self.topic_c().count_bytes());
        // SAFETY: `new` took the count out of an `Arc<Owner>` and allocated with this very layout.
        unsafe {
            drop(Arc::from_raw(self.owner()));
            dealloc(self.head.as_ptr().cast(), layout);
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Scope");
        debug.field("topic", &self.topic()).field("partition", &self.partition());
        debug.field("scope_id", &self.head().scope_id).finish()
    }
}

/// The layout of a scope with a topic of `topic_bytes`, which `text::cut` has bounded.
fn layout(topic_bytes: usize) -> Layout {
    let head = Layout::new::<ScopeHead>();
    Layout::from_size_align(head.size() + topic_bytes + 1, head.align()).expect("a few hundred bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a scope from the address that a site passes, as the kernel program does.
    fn read(site_argument: *const u8) -> (ScopeHead, String, String, String) {
        // SAFETY: the scope of the caller is alive, and the treaty says what lies where.
        unsafe {
            let head = site_argument.sub(Layouts::TOPIC_OFFSET).cast::<ScopeHead>().read();
            let owner = &*std::ptr::with_exposed_provenance::<Owner>(head.owner as usize);
            let topic = CStr::from_ptr(site_argument.cast()).to_str().unwrap().to_owned();
            (head, topic, text::load(&owner.instance_id).to_owned(), text::load(&owner.group).to_owned())
        }
    }

    #[test]
    fn a_site_argument_leads_to_everything() {
        let instance = Instance::new(Role::Consumer, "client-1", "billing");
        let scope = instance.scope("orders", Some(4));
        drop(instance);
        let (head, topic, instance_id, group) = read(scope.touched());
        assert_eq!((topic.as_str(), instance_id.as_str(), group.as_str()), ("orders", "client-1", "billing"));
        assert_eq!((head.partition, head.role), (4, Role::Consumer as u32));
        assert_eq!(head.nonce, process::current().nonce);
        assert_eq!((scope.topic(), scope.partition()), ("orders", Some(4)));
    }

    #[test]
    fn a_scope_of_an_instance_has_neither_topic_nor_partition() {
        let scope = Instance::new(Role::Agent, "agent-1", "").scope("", None);
        let (head, topic, instance_id, group) = read(scope.touched());
        assert_eq!((topic.as_str(), instance_id.as_str(), group.as_str()), ("", "agent-1", ""));
        assert_eq!(head.partition, Layouts::NO_PARTITION);
        assert_eq!((scope.topic(), scope.partition()), ("", None));
    }

    #[test]
    fn scope_ids_are_never_used_again() {
        let instance = Instance::new(Role::Producer, "client-1", "");
        let mut ids: Vec<_> = (0..100).map(|_| instance.scope("orders", None).head().scope_id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 100);
        assert!(ids.is_sorted());
    }
}
