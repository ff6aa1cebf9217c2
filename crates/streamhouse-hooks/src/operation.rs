//! The nouns that are one operation with one duration: their event, and how it reaches the site and `tracing`.

/// Declares such a noun: its site, its event, `start()`, and the hook that ends the operation.
macro_rules! operation {
    (
        site: $site:ident,
        name: $name:literal,
        level: $level:expr,
        $(#[$event_doc:meta])* event: $event:ident,
        $(#[$started_doc:meta])* started,
        $(#[$hook_doc:meta])* hook: $hook:ident,
    ) => {
        site!($site, $name, $event);

        const LEVEL: tracing::Level = $level;

        $(#[$event_doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $event {
            /// Records in it.
            pub records: u64,
            /// Bytes of keys, values and headers, before compression.
            pub bytes: u64,
            $(#[$started_doc])*
            pub started: $crate::Started,
            /// 0 when it succeeded, else an error kind's number.
            pub status: u8,
        }

        /// Call it when the operation begins; reads a clock only while somebody looks.
        #[inline]
        pub fn start() -> $crate::Started {
            $crate::Started::now_when(looked_at())
        }

        #[inline]
        pub(crate) fn looked_at() -> bool {
            $crate::look::at(attached(), LEVEL)
        }

        $(#[$hook_doc])*
        ///
        /// The duration ends now. Never blocks, fails or panics.
        #[inline]
        pub fn $hook(scope: &$crate::Scope, event: $event) {
            if looked_at() {
                observe(scope, event);
            }
        }

        #[cold]
        #[inline(never)]
        fn observe(scope: &$crate::Scope, event: $event) {
            let $event { records, bytes, started, status } = event;
            let duration_ns = started.elapsed_ns();
            let trace_id = $crate::trace::current_id();
            if attached() {
                let trace_id = $crate::trace::address(&trace_id);
                fire(scope.touched(), records, bytes, duration_ns, u64::from(status), trace_id);
            }
            let site = $crate::Site::$site;
            let counted =
                $crate::record::Counted { site, detail: 0, status, records, bytes, duration_ns, bins: None };
            $crate::record::count(scope, counted);
            tracing::event!(
                target: concat!("streamhouse::", $name),
                LEVEL,
                topic = scope.topic(),
                partition = scope.partition(),
                records,
                bytes,
                duration = $crate::look::timed(duration_ns),
                status,
                trace_id = trace_id.map(tracing::field::display),
            );
        }
    };
}
