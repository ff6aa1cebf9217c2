//! One hit: what the site passed, checked.

use aya_ebpf::{EbpfContext, helpers::bpf_get_attach_cookie, programs::ProbeContext};
use streamhouse_abi::limits::{HIT_BYTES_MAX, HIT_DURATION_NS_MAX, HIT_RECORDS_MAX};
use streamhouse_abi::map::{Cookie, Counter, Key};
use streamhouse_abi::{SITE_NONCE_WORD, SITE_SCOPE_ID_WORD, Status, UNTIMED};

/// The arguments of a site, and where it was hit.
pub struct Hit {
    /// Process (thread group) id in the initial pid namespace.
    pub tgid: u32,
    /// What the probe attached to.
    pub target: u32,
    /// A [`Site`](streamhouse_abi::Site)'s number.
    pub site: u16,
    /// Address of the scope's topic in the process.
    pub topic: u64,
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
    /// Duration or [`UNTIMED`].
    pub duration_ns: u64,
    /// A [`Status`]'s number.
    pub status: u64,
    /// The sixth argument: what it means is up to the noun.
    pub particular: u64,
    /// The scope's id, as its head says.
    pub scope_id: u64,
    /// The process's nonce, as the scope's head says.
    pub nonce: u64,
}

impl Hit {
    /// Reads the arguments; none of them is checked yet.
    #[inline(always)]
    pub fn read(ctx: &ProbeContext) -> Option<Hit> {
        // SAFETY: `ctx` is the context this program was called with.
        let cookie = Cookie::from_bits(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
        Some(Hit {
            tgid: ctx.tgid(),
            target: cookie.target,
            site: cookie.site,
            topic: ctx.arg(0)?,
            records: ctx.arg(1)?,
            bytes: ctx.arg(2)?,
            duration_ns: ctx.arg(3)?,
            status: ctx.arg(4)?,
            particular: ctx.arg(5)?,
            scope_id: word(ctx, SITE_SCOPE_ID_WORD),
            nonce: word(ctx, SITE_NONCE_WORD),
        })
    }

    /// What the hit is counted under.
    #[inline(always)]
    pub fn key(&self, detail: u16) -> Key {
        Key { nonce: self.nonce, scope_id: self.scope_id, tgid: self.tgid, site: self.site, detail }
    }

    /// Whether the operation succeeded.
    #[inline(always)]
    pub fn succeeded(&self) -> bool {
        self.status == Status::Ok as u64
    }

    /// The duration, if the operation began while somebody looked.
    #[inline(always)]
    pub fn timed(&self) -> Option<u64> {
        (self.duration_ns != UNTIMED).then_some(self.duration_ns)
    }

    /// Refuses arguments that no honest hook passes, before they are summed: one absurd number would spoil a sum for
    /// good. `timings` is how many durations the fourth argument is the sum of; their average is what is limited.
    #[inline(always)]
    pub fn check(&self, timings: u64) -> Result<(), Counter> {
        let absurd = self.records > HIT_RECORDS_MAX
            || self.bytes > HIT_BYTES_MAX
            || self.status >= Status::ALL.len() as u64
            || self
                .timed()
                .is_some_and(|sum| sum > HIT_DURATION_NS_MAX && sum / timings.max(1) > HIT_DURATION_NS_MAX);
        if absurd { Err(Counter::Clamped) } else { Ok(()) }
    }
}

/// A register, by its place in the context.
#[inline(always)]
fn word(ctx: &ProbeContext, index: usize) -> u64 {
    // SAFETY: the context of a uprobe is the processor's registers, of which there are more; the verifier checks it.
    unsafe { ctx.as_ptr().cast::<u64>().add(index).read() }
}
