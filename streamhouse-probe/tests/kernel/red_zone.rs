//! An attached site is a call that pushes a return address: nothing of the program may lie where it pushes.

use std::hint::black_box;

use streamhouse_abi::{Method, Operation, Role, Site, Status};
use streamhouse_hooks::{
    self as hooks, Commit, Flush, Instance, Object, Poll, Request, Scope, Send, Started, Write,
};

use crate::observer::{Observer, of};

const HITS: u64 = 1_000_000;
/// More locals than registers.
const LOCALS: usize = 24;

fn fire(site: Site, scope: &Scope, round: u64) {
    let (records, bytes, started, status) = (1, round & 1, Started::UNTIMED, 0);
    match site {
        Site::Send => hooks::send(scope, Send { records, bytes, sent_ns: &[round], ended_ns: round, status }),
        Site::Flush => hooks::flush(scope, Flush { records, bytes, started, status }),
        Site::Poll => hooks::poll(scope, Poll { records, bytes, started, status }),
        Site::Write => hooks::write(scope, Write { records, bytes, started, status }),
        Site::Object => hooks::object(scope, Object { operation: Operation::Put, bytes, started, status }),
        Site::Commit => hooks::commit(scope, Commit { records, bytes, started, status }),
        Site::Request => hooks::request(scope, Request { method: Method::Produce, started, status }),
    }
}

/// The locals of one round: no two alike.
fn local(round: u64, number: usize) -> u64 {
    (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(number as u32)
}

pub(crate) fn locals_survive() {
    let mut observer = Observer::new();
    let _link = observer.attach_hooks(1);
    let scope = Instance::new(Role::Agent, "red", "").scope("zone", Some(0));
    for site in Site::ALL {
        for round in 0..HITS {
            let locals: [u64; LOCALS] = std::array::from_fn(|number| local(round, number));
            let locals = black_box(locals);
            fire(site, &scope, round);
            let intact = locals.iter().enumerate().all(|(number, &value)| value == local(round, number));
            assert!(intact, "{site:?} overwrote a local in round {round}");
        }
    }
    let sums = observer.sums();
    for site in Site::ALL {
        let counts = &of(&sums, site, "zone").counts;
        let bytes = if site == Site::Request { 0 } else { HITS / 2 };
        assert_eq!((counts.operations_with(Status::Ok), counts.bytes), (HITS, bytes), "{site:?}");
    }
}
