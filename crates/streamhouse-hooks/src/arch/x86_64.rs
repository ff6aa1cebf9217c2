//! Sites on x86-64.

/// Emits a site: the nop, and the note that tells tracers where it, its semaphore and its arguments are.
///
/// - Not `options(nostack)`: once attached, the kernel (since 6.18) makes the nop a CALL, which pushes a return
///   address. Without that option the compiler keeps nothing in the red zone below the stack pointer that the push
///   would overwrite.
/// - Not `options(nomem)` either: stores to what the arguments point to must have happened when the site is reached.
/// - The site is passed over when the topic is null, and the block gives its address: see `fork`.
/// - The last two arguments are taken from the scope's head, which lies before the topic, right before the nop: into two
///   registers that a call may change anyway.
/// - The note is not allocated: an allocated one would need relocations in a read-only section of a
///   position-independent executable. `_.stapsdt.base` lets tracers correct its addresses after prelinking.
macro_rules! emit {
    ($site:ident, $name:literal, [$a0:expr, $a1:expr, $a2:expr, $a3:expr, $a4:expr, $a5:expr]) => {
        // SAFETY: the bytes are a nop, and whatever a tracer makes of them keeps every register and all memory but the
        // stack below the stack pointer, which is free here. The rest is data in sections of its own.
        unsafe {
            let address: usize;
            std::arch::asm!(
                "test rdi, rdi",
                "je 989f",
                "mov r11, [rdi - {from_scope_id}]",
                "mov r10, [rdi - {from_nonce}]",
                "990: .byte {b0}, {b1}, {b2}, {b3}, {b4}",
                "989: lea rax, [rip + 990b]",
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
                ".asciz \"8@%rdi 8@%rsi 8@%rdx 8@%rcx 8@%r8 8@%r9 8@%r11 8@%r10\"",
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
                b0 = const streamhouse_abi::SITE_NOP[0],
                b1 = const streamhouse_abi::SITE_NOP[1],
                b2 = const streamhouse_abi::SITE_NOP[2],
                b3 = const streamhouse_abi::SITE_NOP[3],
                b4 = const streamhouse_abi::SITE_NOP[4],
                from_scope_id = const $crate::arch::head::FROM_SCOPE_ID,
                from_nonce = const $crate::arch::head::FROM_NONCE,
                semaphores = sym $crate::arch::semaphores::SEMAPHORES,
                semaphore_at = const $crate::arch::semaphores::offset($crate::Site::$site),
                in("rdi") $a0,
                in("rsi") $a1,
                in("rdx") $a2,
                in("rcx") $a3,
                in("r8") $a4,
                in("r9") $a5,
                lateout("rax") address,
                lateout("r10") _,
                lateout("r11") _,
            );
            address
        }
    };
}

/// Whether anyone is attached: one comparison and one jump that is not taken, wherever it is inlined.
///
/// Written out, because the compiler reaches a static of another crate through the global offset table, and Rust does
/// not let the linker undo that: an extra load at each look.
macro_rules! attached {
    ($site:ident) => {
        'look: {
            // SAFETY: reads two bytes that live as long as the program.
            unsafe {
                std::arch::asm!(
                    "cmp word ptr [rip + {semaphores} + {semaphore_at}], 0",
                    "jne {attached}",
                    semaphores = sym $crate::arch::semaphores::SEMAPHORES,
                    semaphore_at = const $crate::arch::semaphores::offset($crate::Site::$site),
                    attached = label { break 'look true },
                    options(readonly, nostack),
                )
            }
            false
        }
    };
}

const _: () = assert!(streamhouse_abi::SITE_NOP.len() == 5);
