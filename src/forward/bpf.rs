//! Whether a frame is one that somebody wants to see, by a program of the classic Berkeley packet filter.
//!
//! The programs come from libpcap in another process, by way of the slow path. [`Program::new`] lets in only what the
//! kernel's checker would: known instructions, jumps forward and within the program, memory within its bounds, a
//! return at the end. So a program ends after as many steps as it has instructions, and reads nothing but the frame.

/// Instructions of a program at most, as in Linux (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Words of a program's memory (`BPF_MEMWORDS`).
const MEMORY_WORDS: usize = 16;

/// One instruction, as `struct sock_filter` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to leave out when a condition holds.
    pub jt: u8,
    /// Instructions to leave out when it does not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// Why a program is not let in; each names the instruction, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// It is empty or longer than [`INSTRUCTIONS_MAX`].
    #[error("the filter has {0} instructions; write one that compiles to 1 to {INSTRUCTIONS_MAX}")]
    Length(usize),
    /// No such instruction.
    #[error("instruction {0} of the filter is unknown; let libpcap compile it for Ethernet frames")]
    Unknown(usize),
    /// It jumps beyond the program's end.
    #[error(
        "instruction {0} of the filter jumps back, or beyond its end; loops, as protochain makes them, are not taken"
    )]
    Jump(usize),
    /// It uses memory that there is not.
    #[error("instruction {0} of the filter uses memory beyond word {MEMORY_WORDS}")]
    Memory(usize),
    /// It divides by the constant zero or shifts by 32 or more.
    #[error("instruction {0} of the filter calculates what has no result")]
    Arithmetic(usize),
    /// The last instruction does not return.
    #[error("the filter does not end with a return")]
    NoReturn,
}

// Classes, in the lowest three bits of a code.
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;
// Sizes and modes of loads.
const W: u16 = 0x00;
const H: u16 = 0x08;
const B: u16 = 0x10;
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xa0;
// Operands.
const X: u16 = 0x08;
const A: u16 = 0x10;
// Arithmetic.
const ADD: u16 = 0x00;
const SUB: u16 = 0x10;
const MUL: u16 = 0x20;
const DIV: u16 = 0x30;
const OR: u16 = 0x40;
const AND: u16 = 0x50;
const LSH: u16 = 0x60;
const RSH: u16 = 0x70;
const NEG: u16 = 0x80;
const MOD: u16 = 0x90;
const XOR: u16 = 0xa0;
// Jumps.
const JA: u16 = 0x00;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;
// Moves between the registers.
const TAX: u16 = 0x00;
const TXA: u16 = 0x80;

/// A program that ends and reads nothing but the frame.
#[derive(Clone, Debug)]
pub struct Program(Box<[Instruction]>);

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// The first instruction that must not be run.
    pub fn new(instructions: &[Instruction]) -> Result<Program, ProgramError> {
        let length = instructions.len();
        if !(1..=INSTRUCTIONS_MAX).contains(&length) {
            return Err(ProgramError::Length(length));
        }
        for (at, instruction) in instructions.iter().enumerate() {
            check(*instruction, at, length)?;
        }
        match instructions.last() {
            Some(last) if last.code & 7 == RET => Ok(Program(instructions.into())),
            _ => Err(ProgramError::NoReturn),
        }
    }

    /// Whether the program takes a frame: `head` is its first bytes and `frame_len` the number of all of them. Reading
    /// beyond `head` refuses it.
    pub fn takes(&self, head: &[u8], frame_len: u32) -> bool {
        self.run(head, frame_len).unwrap_or(0) != 0
    }

    /// What the program returns; `None` where it ends for what it cannot read or calculate.
    fn run(&self, head: &[u8], frame_len: u32) -> Option<u32> {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
        let mut memory = [0_u32; MEMORY_WORDS];
        loop {
            let Instruction { code, jt, jf, k } = *self.0.get(at)?;
            at += 1;
            let operand = if code & X == 0 { k } else { x };
            match code & 7 {
                LD => {
                    a = match code & 0xe0 {
                        ABS => load(head, Some(k), code)?,
                        IND => load(head, x.checked_add(k), code)?,
                        MEM => *memory.get(k as usize)?,
                        LEN => frame_len,
                        _ => k,
                    }
                }
                LDX => {
                    x = match code & 0xe0 {
                        MEM => *memory.get(k as usize)?,
                        LEN => frame_len,
                        MSH => (u32::from(*head.get(k as usize)?) & 0x0f) << 2,
                        _ => k,
                    }
                }
                ST => *memory.get_mut(k as usize)? = a,
                STX => *memory.get_mut(k as usize)? = x,
                ALU => a = calculate(code & 0xf0, a, operand)?,
                JMP => {
                    let holds = match code & 0xf0 {
                        JA => {
                            at = at.checked_add(k as usize)?;
                            continue;
                        }
                        JEQ => a == operand,
                        JGT => a > operand,
                        JGE => a >= operand,
                        _ => a & operand != 0,
                    };
                    at += usize::from(if holds { jt } else { jf });
                }
                RET => return Some(if code & A == 0 { k } else { a }),
                _ if code & TXA == 0 => x = a,
                _ => a = x,
            }
        }
    }
}

fn check(instruction: Instruction, at: usize, length: usize) -> Result<(), ProgramError> {
    let Instruction { code, jt, jf, k } = instruction;
    let rest = length - at - 1;
    let known = match code & 7 {
        LD => matches!(code & !0x18, ABS | IND) && matches!(code & 0x18, W | H | B) || [IMM, MEM, LEN].contains(&code),
        LDX => [IMM, MEM, LEN].contains(&(code & !LDX)) || code == LDX | MSH | B,
        ST | STX => code == ST || code == STX,
        ALU => code & 0xff00 == 0 && code & 0xf0 <= XOR && code != ALU | NEG | X,
        JMP => code == JMP | JA || code & 0xff00 == 0 && matches!(code & 0xf0, JEQ | JGT | JGE | JSET),
        RET => code == RET || code == RET | A,
        MISC => code == MISC | TAX || code == MISC | TXA,
        _ => false,
    };
    if !known {
        return Err(ProgramError::Unknown(at));
    }
    let uses_memory = matches!(code & 7, ST | STX) || matches!(code & 7, LD | LDX) && code & 0xe0 == MEM;
    if uses_memory && k as usize >= MEMORY_WORDS {
        return Err(ProgramError::Memory(at));
    }
    let constant = code & 7 == ALU && code & X == 0;
    let undefined = match code & 0xf0 {
        DIV | MOD => k == 0,
        LSH | RSH => k >= 32,
        _ => false,
    };
    if constant && undefined {
        return Err(ProgramError::Arithmetic(at));
    }
    let beyond = match code & 7 {
        JMP if code & 0xf0 == JA => k as usize >= rest,
        JMP => usize::from(jt.max(jf)) >= rest,
        _ => false,
    };
    if beyond { Err(ProgramError::Jump(at)) } else { Ok(()) }
}

/// One, two or four bytes of the frame, in network order.
fn load(head: &[u8], at: Option<u32>, code: u16) -> Option<u32> {
    let bytes = head.get(at? as usize..)?;
    match code & 0x18 {
        B => bytes.first().map(|byte| u32::from(*byte)),
        H => bytes.first_chunk().map(|bytes| u32::from(u16::from_be_bytes(*bytes))),
        _ => bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
    }
}

fn calculate(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        ADD => a.wrapping_add(operand),
        SUB => a.wrapping_sub(operand),
        MUL => a.wrapping_mul(operand),
        DIV => a.checked_div(operand)?,
        OR => a | operand,
        AND => a & operand,
        LSH => a.checked_shl(operand).unwrap_or(0),
        RSH => a.checked_shr(operand).unwrap_or(0),
        NEG => a.wrapping_neg(),
        MOD => a.checked_rem(operand)?,
        _ => a ^ operand,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: u16, k: u32) -> Instruction {
        Instruction { code, jt: 0, jf: 0, k }
    }

    fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    const RETURN_A: Instruction = Instruction { code: RET | A, jt: 0, jf: 0, k: 0 };

    #[test]
    fn every_instruction_does_what_it_says() {
        let head = [0x45, 0x01, 0x02, 0x03, 0x04, 0x05];
        let returned = |program: &[Instruction]| Program::new(program).expect("a sound program").run(&head, 60);
        let (seven, three) = (op(LD | IMM, 7), op(LDX | IMM, 3));
        let with = |code: u16| returned(&[seven, three, op(ALU | code, 3), RETURN_A]);
        for (program, expected) in [
            (&[op(LD | ABS | W, 1), RETURN_A][..], Some(0x0102_0304)),
            (&[op(LD | ABS | H, 1), RETURN_A], Some(0x0102)),
            (&[op(LD | ABS | B, 5), RETURN_A], Some(5)),
            (&[op(LD | ABS | B, 6), RETURN_A], None),
            (&[op(LD | ABS | W, 3), RETURN_A], None),
            (&[op(LD | ABS | B, u32::MAX), RETURN_A], None),
            (&[three, op(LD | IND | B, 1), RETURN_A], Some(4)),
            (&[three, op(LD | IND | B, u32::MAX), RETURN_A], None),
            (&[op(LD | LEN, 0), RETURN_A], Some(60)),
            (&[op(LDX | LEN, 0), op(MISC | TXA, 0), RETURN_A], Some(60)),
            (&[op(LDX | MSH | B, 0), op(MISC | TXA, 0), RETURN_A], Some(20)),
            (&[op(LDX | MSH | B, 6), op(RET, 1)], None),
            (&[seven, op(ST, 15), op(LD | IMM, 0), op(LD | MEM, 15), RETURN_A], Some(7)),
            (&[three, op(STX, 2), op(LDX | IMM, 9), op(LDX | MEM, 2), op(MISC | TXA, 0), RETURN_A], Some(3)),
            (&[seven, op(MISC | TAX, 0), op(LD | IMM, 0), op(MISC | TXA, 0), RETURN_A], Some(7)),
            (&[op(LD | MEM, 1), RETURN_A], Some(0)),
            (&[seven, op(ALU | NEG, 0), RETURN_A], Some(7_u32.wrapping_neg())),
            (&[seven, op(ALU | DIV | X, 0), RETURN_A], None),
            (&[seven, op(ALU | MOD | X, 0), RETURN_A], None),
            (&[seven, op(LDX | IMM, 32), op(ALU | LSH | X, 0), RETURN_A], Some(0)),
            (&[op(RET, 9)], Some(9)),
            (&[op(JMP | JA, 1), op(RET, 1), op(RET, 2)], Some(2)),
        ] {
            assert_eq!(returned(program), expected, "{program:?}");
        }
        for (code, expected) in
            [(ADD, 10), (SUB, 4), (MUL, 21), (DIV, 2), (OR, 7), (AND, 3), (LSH, 56), (RSH, 0), (MOD, 1), (XOR, 4)]
        {
            assert_eq!(with(code), Some(expected), "{code:#x} by a constant");
            assert_eq!(with(code | X), Some(expected), "{code:#x} by X");
        }
        for (code, holds) in [(JEQ, [false, true, false]), (JGT, [false, false, true]), (JGE, [false, true, true])] {
            for (k, holds) in [8, 7, 6].into_iter().zip(holds) {
                let program = [seven, jump(JMP | code, k, 1, 0), op(RET, 0), op(RET, 1)];
                assert_eq!(returned(&program), Some(u32::from(holds)), "7 {code:#x} {k}");
                let program = [seven, op(LDX | IMM, k), jump(JMP | code | X, 0, 1, 0), op(RET, 0), op(RET, 1)];
                assert_eq!(returned(&program), Some(u32::from(holds)), "7 {code:#x} {k} in X");
            }
        }
        for (k, set) in [(4, 1), (8, 0)] {
            let program = [seven, jump(JMP | JSET, k, 1, 0), op(RET, 0), op(RET, 1)];
            assert_eq!(returned(&program), Some(set));
        }
    }

    #[test]
    fn what_could_run_astray_is_not_let_in() {
        let end = op(RET, 0);
        let long = vec![end; INSTRUCTIONS_MAX + 1];
        for (program, error) in [
            (&[][..], ProgramError::Length(0)),
            (&long, ProgramError::Length(INSTRUCTIONS_MAX + 1)),
            (&[op(0x00ff, 0), end], ProgramError::Unknown(0)),
            (&[op(0x8006, 0)], ProgramError::Unknown(0)),
            (&[op(0x0100 | ALU, 1), end], ProgramError::Unknown(0)),
            (&[op(LD | ABS | 0x18, 0), end], ProgramError::Unknown(0)),
            (&[op(LD | MSH | B, 0), end], ProgramError::Unknown(0)),
            (&[op(JMP | 0x50, 0), end], ProgramError::Unknown(0)),
            (&[end, op(ST, 16), end], ProgramError::Memory(1)),
            (&[op(STX, u32::MAX), end], ProgramError::Memory(0)),
            (&[op(LD | MEM, 16), end], ProgramError::Memory(0)),
            (&[op(LDX | MEM, 16), end], ProgramError::Memory(0)),
            (&[op(ALU | DIV, 0), end], ProgramError::Arithmetic(0)),
            (&[op(ALU | MOD, 0), end], ProgramError::Arithmetic(0)),
            (&[op(ALU | LSH, 32), end], ProgramError::Arithmetic(0)),
            (&[op(JMP | JA, 1), end], ProgramError::Jump(0)),
            (&[op(JMP | JA, u32::MAX), end], ProgramError::Jump(0)),
            (&[jump(JMP | JEQ, 0, 0, 1), end], ProgramError::Jump(0)),
            (&[jump(JMP | JEQ, 0, 255, 0), end], ProgramError::Jump(0)),
            (&[op(LD | IMM, 0)], ProgramError::NoReturn),
        ] {
            assert_eq!(Program::new(program).err(), Some(error), "{program:?}");
        }
        assert!(Program::new(&[op(JMP | JA, 0), end]).is_ok());
        assert!(Program::new(&[jump(JMP | JEQ, 0, 1, 0), end, end]).is_ok());
    }
}
