//! Sites on aarch64.

/// Emits a site: the nop, and the note that tells tracers where it, its semaphore and its arguments are.
///
/// What the x86-64 twin of this macro says about options and sections holds here too; there is no red zone, and the
/// kernel traps on a breakpoint instead of calling.
macro_rules! emit {
    ($site:ident, $name:literal, [$a0:expr, $a1:expr, $a2:expr, $a3:expr, $a4:expr, $a5:expr]) => {
        // As an instruction: written as bytes it would be marked as data.
        const NOP: u32 = match *streamhouse_abi::SITE_NOP {
            [b0, b1, b2, b3] => u32::from_le_bytes([b0, b1, b2, b3]),
            _ => panic!("an instruction is four bytes"),
        };
        // SAFETY: the bytes are a nop, and whatever a tracer makes of them keeps every register and all memory but the
        // stack below the stack pointer, which is free here. The rest is data in sections of its own.
        unsafe {
            let address: usize;
            std::arch::asm!(
                "cbz x0, 989f",
                "ldur x6, [x0, -{from_scope_id}]",
                "ldur x7, [x0, -{from_nonce}]",
                "990: .inst {nop}",
                "989: adr x6, 990b",
                ".pushsection .note.stapsdt, \"?\", \"note\"",
                ".balign 4",
                ".4byte 992f-991f, 994f-993f, 3",
                "991: .asciz \"stapsdt\"",
                "992: .balign 4",
                "993: .8byte 990b",
                ".8byte _.stapsdt.base",
                ".8byte {semaphores} + {semaphore_at}",
                ".asciz \"streamhouse\"",
                concat!(".asciz \"", $name, "\""),
                ".asciz \"8@x0 8@x1 8@x2 8@x3 8@x4 8@x5 8@x6 8@x7\"",
                "994: .balign 4",
                ".popsection",
                ".ifndef _.stapsdt.base",
                ".pushsection .stapsdt.base, \"aGR\", \"progbits\", .stapsdt.base, comdat",
                ".weak _.stapsdt.base",
                ".hidden _.stapsdt.base",
                "_.stapsdt.base: .space 1",
                ".size _.stapsdt.base, 1",
                ".popsection",
                ".endif",
                nop = const NOP,
                from_scope_id = const $crate::arch::head::FROM_SCOPE_ID,
                from_nonce = const $crate::arch::head::FROM_NONCE,
                semaphores = sym $crate::arch::semaphores::SEMAPHORES,
                semaphore_at = const $crate::arch::semaphores::offset($crate::Site::$site),
                in("x0") $a0,
                in("x1") $a1,
                in("x2") $a2,
                in("x3") $a3,
                in("x4") $a4,
                in("x5") $a5,
                lateout("x6") address,
                lateout("x7") _,
            );
            address
        }
    };
}

/// Whether anyone is attached.
macro_rules! attached {
    ($site:ident) => {
        $crate::arch::semaphores::SEMAPHORES.0[$crate::Site::$site as usize]
            .load(std::sync::atomic::Ordering::Relaxed)
            != 0
    };
}
