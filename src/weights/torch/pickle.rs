//! A pickle machine that builds plain values and runs nothing.
//!
//! Python's pickle is a stack language whose REDUCE, BUILD and NEWOBJ opcodes call functions by name.
//! Here a call goes to a [`Caller`], which knows the few that rebuild tensors; every other call becomes
//! an opaque object that stays in its place, unexecuted, and is skipped later.
//!
//! Values live in one arena and refer to one another by index: shared and cyclic structures cost
//! nothing, and nesting as deep as the input cannot exhaust the stack. Text and bytes are borrowed
//! from the input. So memory grows at most linearly with the input, and both are limited.

use std::collections::HashMap;

use super::super::entry::TensorEntry;

/// The longest pickle read; those of real checkpoints take up to a few megabytes.
const MAX_LEN: usize = 32 << 20;
/// Containers and objects in one pickle.
const MAX_NODES: usize = 1 << 19;
/// Arguments of a call that are looked at; a pickle may refer to one huge tuple again and again.
const MAX_ARGS: usize = 8;

/// The sentence says what is wrong, and `load` adds where.
pub(super) type Outcome<T> = std::result::Result<T, String>;

/// A Python value. Containers are indices into [`Values`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes,
    /// A module-level name: (module, name).
    Global(&'a str, &'a str),
    Node(usize),
}

/// A value made of others.
pub(super) enum Node<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// What a persistent id stands for.
    Storage(Storage<'a>),
    Tensor(TensorEntry),
    /// A tensor that cannot be used; the text says why.
    Unusable(String),
    /// The unexecuted result of a call, with the state a later BUILD gave it.
    Object {
        class: (&'a str, &'a str),
        state: Option<Value<'a>>,
    },
}

/// A storage: the zip entry `data/key` as `count` elements of a torch type.
#[derive(Clone, Copy)]
pub(super) struct Storage<'a> {
    pub class: &'a str,
    pub key: &'a str,
    pub count: usize,
}

/// The arena and its root.
pub(super) struct Values<'a> {
    nodes: Vec<Node<'a>>,
    root: Value<'a>,
}

impl<'a> Values<'a> {
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    pub fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(i) => self.nodes.get(i),
            _ => None,
        }
    }

    pub fn push(&mut self, node: Node<'a>) -> Outcome<Value<'a>> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("it holds more than {MAX_NODES} objects"));
        }
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() - 1))
    }

    fn node_mut(&mut self, value: Value<'a>) -> Option<&mut Node<'a>> {
        match value {
            Value::Node(i) => self.nodes.get_mut(i),
            _ => None,
        }
    }

    pub fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value) {
            Some(Node::Tuple(items)) => Some(items),
            _ => None,
        }
    }

    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value) {
            Some(Node::Dict(items)) => Some(items),
            _ => None,
        }
    }

    /// A few distinct class names of the objects that were left unexecuted.
    pub fn objects(&self) -> Vec<String> {
        let mut names = Vec::new();
        for node in &self.nodes {
            if let Node::Object { class: (module, name), .. } = node {
                let name: String = format!("{module}.{name}").chars().take(80).collect();
                if !names.contains(&name) {
                    names.push(name);
                }
                if names.len() == 4 {
                    break;
                }
            }
        }
        names
    }
}

/// The calls and persistent ids that are understood.
pub(super) trait Caller<'a> {
    /// The result of `module.name(*args)`, or `None` to keep the call as an opaque object.
    fn call(
        &mut self,
        values: &mut Values<'a>,
        function: (&'a str, &'a str),
        args: &[Value<'a>],
    ) -> Outcome<Option<Value<'a>>>;

    /// The storage that a persistent id names.
    fn persistent(&mut self, values: &Values<'a>, id: Value<'a>) -> Outcome<Storage<'a>>;
}

/// Runs the pickle to its STOP opcode.
pub(super) fn load<'a>(input: &'a [u8], caller: &mut impl Caller<'a>) -> Outcome<Values<'a>> {
    if input.len() > MAX_LEN {
        return Err(format!("it has {} bytes, at most {MAX_LEN} are read", input.len()));
    }
    let values = Values { nodes: Vec::new(), root: Value::None };
    let mut machine =
        Machine { input, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), values };
    loop {
        let opcode_at = machine.at;
        match machine.step(caller) {
            Ok(false) => {}
            Ok(true) => return Ok(machine.values),
            Err(what) => return Err(format!("{what} (byte {opcode_at})")),
        }
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Stack heights at open MARKs.
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
    values: Values<'a>,
}

impl<'a> Machine<'a> {
    /// Runs one opcode; true after STOP.
    fn step(&mut self, caller: &mut impl Caller<'a>) -> Outcome<bool> {
        let opcode = self.take(1)?[0];
        match opcode {
            // PROTO, FRAME
            0x80 => {
                let version = self.take(1)?[0];
                if version > 5 {
                    return Err(format!("pickle protocol {version} is unknown"));
                }
            }
            0x95 => drop(self.take(8)?),
            // STOP
            b'.' => {
                self.values.root = self.pop()?;
                return Ok(true);
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            // BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
            b'J' => {
                let bytes = self.array::<4>()?;
                self.stack.push(Value::Int(i32::from_le_bytes(bytes).into()));
            }
            b'K' => self.push_int(1)?,
            b'M' => self.push_int(2)?,
            0x8a => {
                let len = self.length(1)?;
                self.push_long(len)?;
            }
            0x8b => {
                let len = self.length(4)?;
                self.push_long(len)?;
            }
            b'G' => {
                let bytes = self.array::<8>()?;
                self.stack.push(Value::Float(f64::from_be_bytes(bytes)));
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8, and Python 2's SHORT_BINSTRING, BINSTRING
            0x8c | b'U' => self.push_text(1)?,
            b'X' | b'T' => self.push_text(4)?,
            0x8d => self.push_text(8)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.push_bytes(1)?,
            b'B' => self.push_bytes(4)?,
            0x8e | 0x96 => self.push_bytes(8)?,
            // EMPTY_TUPLE, TUPLE1..3, TUPLE
            b')' => self.push_tuple(Vec::new())?,
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push_tuple(items)?;
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push_tuple(items)?;
            }
            // EMPTY_LIST, EMPTY_SET, LIST, FROZENSET: a set is only ever skipped, a list serves
            b']' | 0x8f => self.push_node(Node::List(Vec::new()))?,
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push_node(Node::List(items))?;
            }
            // APPEND, APPENDS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Dict(Vec::new()))?;
                self.extend_dict(&items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.extend_dict(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            // BINGET, LONG_BINGET, BINPUT, LONG_BINPUT, MEMOIZE
            b'h' => {
                let key = self.length(1)?;
                self.get(key)?;
            }
            b'j' => {
                let key = self.length(4)?;
                self.get(key)?;
            }
            b'q' => {
                let key = self.length(1)?;
                self.put(key)?;
            }
            b'r' => {
                let key = self.length(4)?;
                self.put(key)?;
            }
            0x94 => self.put(self.memo.len())?,
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Global(module, name));
            }
            0x93 => match self.pop_many(2)?[..] {
                [Value::Text(module), Value::Text(name)] => self.stack.push(Value::Global(module, name)),
                _ => return Err("a global is not named by two texts".into()),
            },
            // REDUCE, NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID
            b'R' => self.reduce(caller)?,
            0x81 => self.new_object(2)?,
            0x92 => self.new_object(3)?,
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                let storage = caller.persistent(&self.values, id)?;
                self.push_node(Node::Storage(storage))?;
            }
            other => return Err(format!("pickle opcode {other:#04x} is not one that torch.save writes")),
        }
        Ok(false)
    }

    fn take(&mut self, len: usize) -> Outcome<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.input.len());
        let end = end.ok_or("it is cut off")?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "it is cut off".into())
    }

    /// A little-endian unsigned integer of `width` bytes.
    fn length(&mut self, width: usize) -> Outcome<usize> {
        let mut word = [0; 8];
        word[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(word)).map_err(|_| "a length is out of range".into())
    }

    fn line(&mut self) -> Outcome<&'a str> {
        let rest = &self.input[self.at..];
        let len = rest.iter().position(|b| *b == b'\n').ok_or("it is cut off")?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| "a name is not UTF-8".into())
    }

    fn push_int(&mut self, width: usize) -> Outcome<()> {
        let value = self.length(width)?;
        self.stack.push(Value::Int(value as i64));
        Ok(())
    }

    /// A two's complement integer of `len` bytes; those beyond 64 bits are of no use to a checkpoint.
    fn push_long(&mut self, len: usize) -> Outcome<()> {
        let bytes = self.take(len)?;
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 };
        let mut word = [fill; 8];
        self.stack.push(if len <= 8 {
            word[..len].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(word))
        } else {
            Value::None
        });
        Ok(())
    }

    fn push_text(&mut self, width: usize) -> Outcome<()> {
        let len = self.length(width)?;
        let bytes = self.take(len)?;
        // Python writes lone surrogates, which are not UTF-8; such a text names no tensor.
        self.stack.push(std::str::from_utf8(bytes).map_or(Value::Bytes, Value::Text));
        Ok(())
    }

    fn push_bytes(&mut self, width: usize) -> Outcome<()> {
        let len = self.length(width)?;
        self.take(len)?;
        self.stack.push(Value::Bytes);
        Ok(())
    }

    fn push_node(&mut self, node: Node<'a>) -> Outcome<()> {
        let value = self.values.push(node)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value<'a>>) -> Outcome<()> {
        self.push_node(Node::Tuple(items))
    }

    fn top(&self) -> Outcome<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(value) if self.stack.len() > floor => Ok(*value),
            _ => Err("its stack is empty".into()),
        }
    }

    fn pop(&mut self) -> Outcome<Value<'a>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_many(&mut self, count: usize) -> Outcome<Vec<Value<'a>>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(from) if from >= floor => Ok(self.stack.split_off(from)),
            _ => Err("its stack is empty".into()),
        }
    }

    fn pop_mark(&mut self) -> Outcome<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        // The stack never sinks below the last mark, see `top` and `pop_many`.
        let items = self.stack.drain(mark.min(self.stack.len())..).collect();
        Ok(items)
    }

    fn get(&mut self, key: usize) -> Outcome<()> {
        let value = *self.memo.get(&key).ok_or("a memo entry is missing")?;
        self.stack.push(value);
        Ok(())
    }

    fn put(&mut self, key: usize) -> Outcome<()> {
        let value = self.top()?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn extend_list(&mut self, new: Vec<Value<'a>>) -> Outcome<()> {
        let target = self.top()?;
        match self.values.node_mut(target) {
            Some(Node::List(items)) => items.extend(new),
            // A subclass of list that was left unexecuted: its items go with it.
            Some(Node::Object { .. }) => {}
            _ => return Err("items are appended to what is no list".into()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, pairs: &[Value<'a>]) -> Outcome<()> {
        if !pairs.len().is_multiple_of(2) {
            return Err("a dictionary has a key without a value".into());
        }
        let target = self.top()?;
        match self.values.node_mut(target) {
            Some(Node::Dict(items)) => items.extend(pairs.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Some(Node::Object { .. }) => {}
            _ => return Err("items are set in what is no dictionary".into()),
        }
        Ok(())
    }

    fn reduce(&mut self, caller: &mut impl Caller<'a>) -> Outcome<()> {
        let (args, function) = (self.pop()?, self.pop()?);
        let Some(items) = self.values.tuple(args) else {
            return Err("a call has no argument tuple".into());
        };
        let items: Vec<_> = items.iter().take(MAX_ARGS).copied().collect();
        let class = self.class_of(function);
        if let Value::Global(module, name) = function
            && let Some(value) = caller.call(&mut self.values, (module, name), &items)?
        {
            self.stack.push(value);
            return Ok(());
        }
        self.push_node(Node::Object { class, state: None })
    }

    /// NEWOBJ (class, arguments) and NEWOBJ_EX (class, arguments, keywords).
    fn new_object(&mut self, operands: usize) -> Outcome<()> {
        let operands = self.pop_many(operands)?;
        let class = self.class_of(operands[0]);
        self.push_node(Node::Object { class, state: None })
    }

    fn class_of(&self, value: Value<'a>) -> (&'a str, &'a str) {
        match (value, self.values.node(value)) {
            (Value::Global(module, name), _) => (module, name),
            (_, Some(Node::Object { class, .. })) => *class,
            _ => ("?", "?"),
        }
    }

    /// BUILD sets attributes. Those of a dictionary (`_metadata` of a state dict) or of a tensor are of
    /// no use here; those of an object are kept beside it.
    fn build(&mut self) -> Outcome<()> {
        let state = self.pop()?;
        let target = self.top()?;
        if let Some(Node::Object { state: place, .. }) = self.values.node_mut(target) {
            *place = Some(state);
        }
        Ok(())
    }
}
