//! What ships: read from the stripped release binaries.

use anyhow::{Context, Result, ensure};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, OpKind, Register};
use object::{Object, ObjectSection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use streamhouse_abi::{SITE_ARGUMENTS, SITE_NOP};
use streamhouse_tests::Cluster;
use streamhouse_tests::notes::{self, Note};

/// Each binary has the sites of its role, once; each is our nop, and before it the semaphore is tested and jumped over.
pub(crate) fn every_site_is_our_nop_behind_its_semaphore(cluster: &Cluster) -> Result<()> {
    let agent = check(&cluster.binaries.agent())?;
    for site in ["write", "object", "commit"] {
        ensure!(agent.contains(site), "the agent has no site {site}: {agent:?}");
    }
    let client = check(&cluster.binaries.cli())?;
    for site in ["send", "flush", "poll", "object"] {
        ensure!(client.contains(site), "the client has no site {site}: {client:?}");
    }
    Ok(())
}

/// The sites of a binary, checked.
fn check(path: &Path) -> Result<BTreeSet<String>> {
    let bytes = std::fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    ensure!(file.symbol_table().is_none(), "{} is not stripped", path.display());
    let text = file.section_by_name(".text").context("no .text")?;
    let code = Text { address: text.address(), bytes: text.data()? };
    let tests = code.semaphore_tests(&notes::read(path)?);
    let mut names = BTreeSet::new();
    for note in notes::read(path)? {
        let at = |what: &str| format!("{} site {}: {what}", path.display(), note.name);
        ensure!(names.insert(note.name.clone()), at("it is there twice"));
        ensure!(note.arguments == SITE_ARGUMENTS, at("its arguments are not ours"));
        ensure!(code.at(note.site, SITE_NOP.len())? == SITE_NOP, at("it is not our nop"));
        ensure!(!code.uses_red_zone(note.site), at("its function keeps something below the stack pointer"));
        ensure!(tests.get(&note.semaphore).is_some_and(|count| *count > 0), at("nobody tests its semaphore"));
    }
    Ok(names)
}

struct Text<'a> {
    address: u64,
    bytes: &'a [u8],
}

impl Text<'_> {
    fn at(&self, address: u64, len: usize) -> Result<&[u8]> {
        let offset = address.checked_sub(self.address).context("a site lies before .text")? as usize;
        self.bytes.get(offset..offset + len).context("a site lies behind .text")
    }

    /// Whether an instruction between the last return before `site` and the first one after it reads or writes below
    /// the stack pointer, where an attached site pushes.
    fn uses_red_zone(&self, site: u64) -> bool {
        let mut used = false;
        for instruction in Decoder::with_ip(64, self.bytes, self.address, DecoderOptions::NONE) {
            let below = instruction.memory_base() == Register::RSP
                && (instruction.memory_displacement64() as i64) < 0;
            used |= below && instruction.code() != Code::Lea_r64_m;
            if instruction.flow_control() == FlowControl::Return {
                if instruction.ip() > site {
                    return used;
                }
                used = false;
            }
        }
        true
    }

    /// How often each semaphore is compared with zero by one instruction that the next, a conditional jump, acts on.
    fn semaphore_tests(&self, notes: &[Note]) -> BTreeMap<u64, usize> {
        let semaphores: BTreeSet<u64> = notes.iter().map(|note| note.semaphore).collect();
        let mut decoder = Decoder::with_ip(64, self.bytes, self.address, DecoderOptions::NONE);
        let mut tests = BTreeMap::new();
        let mut compared = None;
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if let Some(semaphore) = compared.take()
                && instruction.flow_control() == FlowControl::ConditionalBranch
            {
                *tests.entry(semaphore).or_default() += 1;
            }
            let memory = instruction.op0_kind() == OpKind::Memory && instruction.is_ip_rel_memory_operand();
            let compares = matches!(instruction.code(), Code::Cmp_rm16_imm8 | Code::Cmp_rm16_imm16);
            if memory && compares && semaphores.contains(&instruction.ip_rel_memory_address()) {
                compared = Some(instruction.ip_rel_memory_address());
            }
        }
        tests
    }
}
