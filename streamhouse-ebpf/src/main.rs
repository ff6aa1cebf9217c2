//! The kernel program: runs when a site is hit, adds what the site tells to maps, and returns.
//!
//! One program serves every site of every process; the attach cookie says which target and site it was. A hit is in
//! the sums or in exactly one counter of what was refused. What is particular to a noun is in the noun's file:
//! `check` decides before anything is looked up, `succeed` adds what only a success has.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod commit;
mod counters;
mod flush;
mod hit;
mod object;
mod operation;
mod poll;
mod process;
mod request;
mod scope;
mod send;
mod target;
mod value;
mod write;

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use aya_log_ebpf::warn;
use hit::Hit;
use streamhouse_abi::Site;
use streamhouse_abi::map::Counter;

const SEND: u16 = Site::Send as u16;
const FLUSH: u16 = Site::Flush as u16;
const POLL: u16 = Site::Poll as u16;
const WRITE: u16 = Site::Write as u16;
const OBJECT: u16 = Site::Object as u16;
const COMMIT: u16 = Site::Commit as u16;
const REQUEST: u16 = Site::Request as u16;

/// Runs at every hit; named [`streamhouse_abi::map::PROGRAM`].
#[uprobe]
pub fn site(ctx: ProbeContext) -> u32 {
    counters::add(Counter::Hits, 1);
    let Some(hit) = Hit::read(&ctx) else { return 0 };
    if let Err(refusal) = serve(&hit)
        && counters::add(refusal, 1)
    {
        // The first of its kind on this CPU: enough to be seen, never a flood.
        warn!(
            &ctx,
            "refused a hit of pid {}: site {}, target {}, reason {}",
            hit.tgid,
            hit.site,
            hit.target,
            refusal as u32
        );
    }
    0
}

/// Adds a hit to the sums, or says why not.
#[inline(always)]
fn serve(hit: &Hit) -> Result<(), Counter> {
    let detail = match hit.site {
        SEND => send::check(hit)?,
        FLUSH => flush::check(hit)?,
        POLL => poll::check(hit)?,
        WRITE => write::check(hit)?,
        OBJECT => object::check(hit)?,
        COMMIT => commit::check(hit)?,
        REQUEST => request::check(hit)?,
        _ => return Err(Counter::Clamped),
    };
    let key = hit.key(detail);
    let value = value::of(&key, hit)?;
    value::count(value, hit);
    if hit.succeeded() {
        match hit.site {
            SEND => send::succeed(value, hit),
            FLUSH => flush::succeed(value, &key, hit),
            POLL => poll::succeed(value, hit),
            WRITE => write::succeed(value, hit),
            OBJECT => object::succeed(value, hit),
            COMMIT => commit::succeed(value, hit),
            REQUEST => request::succeed(value, hit),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics: the verifier would refuse this loop.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
