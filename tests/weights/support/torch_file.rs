//! A writer of PyTorch zip checkpoints: what `torch.save` makes, and what it would not.

/// A Python value to be pickled.
#[derive(Clone)]
pub enum Py {
    None,
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Py>),
    List(Vec<Py>),
    Dict(Vec<(Py, Py)>),
    /// collections.OrderedDict with the attribute `_metadata`, as modules save their state.
    Ordered(Vec<(Py, Py)>),
    Global(&'static str, &'static str),
    /// module.name(*args)
    Call(&'static str, &'static str, Vec<Py>),
    /// An instance made by `__new__`, with its `__dict__`.
    Object(&'static str, &'static str, Vec<(Py, Py)>),
    Tensor(View),
    /// torch.nn.Parameter
    Parameter(View),
}

/// A tensor: a view of the storage `key`.
#[derive(Clone)]
pub struct View {
    pub class: &'static str,
    pub key: &'static str,
    pub count: i64,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

impl View {
    /// The whole float32 storage `key`, contiguous.
    pub fn whole(key: &'static str, shape: &[i64]) -> View {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        let count = shape.iter().product();
        View { class: "FloatStorage", key, count, offset: 0, shape: shape.to_vec(), strides }
    }
}

pub fn text(value: &str) -> Py {
    Py::Text(value.to_owned())
}

/// Pairs with text keys.
pub fn pairs(items: Vec<(&str, Py)>) -> Vec<(Py, Py)> {
    items.into_iter().map(|(key, value)| (text(key), value)).collect()
}

pub fn dict(items: Vec<(&str, Py)>) -> Py {
    Py::Dict(pairs(items))
}

/// The pickle of `value`, protocol 2 (as torch.save writes) or 4.
pub fn pickle(value: &Py, protocol: u8) -> Vec<u8> {
    let mut out = Pickler { bytes: vec![0x80, protocol], protocol, memo: 0 };
    out.value(value);
    out.bytes.push(b'.');
    out.bytes
}

struct Pickler {
    bytes: Vec<u8>,
    protocol: u8,
    memo: u32,
}

impl Pickler {
    fn op(&mut self, opcode: u8) {
        self.bytes.push(opcode);
    }

    fn memoize(&mut self) {
        if self.protocol >= 4 {
            self.op(0x94);
        } else if self.memo < 256 {
            self.bytes.extend([b'q', self.memo as u8]);
        } else {
            self.op(b'r');
            self.bytes.extend(self.memo.to_le_bytes());
        }
        self.memo += 1;
    }

    fn text(&mut self, value: &str) {
        if self.protocol >= 4 {
            self.bytes.extend([0x8c, u8::try_from(value.len()).expect("short text")]);
        } else {
            self.op(b'X');
            self.bytes.extend((value.len() as u32).to_le_bytes());
        }
        self.bytes.extend(value.as_bytes());
        self.memoize();
    }

    fn int(&mut self, value: i64) {
        match value {
            0..=255 => self.bytes.extend([b'K', value as u8]),
            256..=65535 => {
                self.op(b'M');
                self.bytes.extend((value as u16).to_le_bytes());
            }
            _ if i32::try_from(value).is_ok() => {
                self.op(b'J');
                self.bytes.extend((value as i32).to_le_bytes());
            }
            _ => {
                self.bytes.extend([0x8a, 8]);
                self.bytes.extend(value.to_le_bytes());
            }
        }
    }

    fn global(&mut self, module: &str, name: &str) {
        if self.protocol >= 4 {
            self.text(module);
            self.text(name);
            self.op(0x93);
        } else {
            self.op(b'c');
            self.bytes.extend(format!("{module}\n{name}\n").as_bytes());
        }
        self.memoize();
    }

    fn tuple(&mut self, items: &[Py]) {
        if items.is_empty() {
            return self.op(b')');
        }
        if items.len() > 3 {
            self.op(b'(');
        }
        items.iter().for_each(|item| self.value(item));
        self.op(match items.len() {
            n @ 1..=3 => 0x84 + n as u8,
            _ => b't',
        });
        self.memoize();
    }

    fn items(&mut self, items: &[(Py, Py)]) {
        if items.is_empty() {
            return;
        }
        self.op(b'(');
        for (key, value) in items {
            self.value(key);
            self.value(value);
        }
        self.op(b'u');
    }

    fn value(&mut self, value: &Py) {
        match value {
            Py::None => self.op(b'N'),
            Py::Int(n) => self.int(*n),
            Py::Float(x) => {
                self.op(b'G');
                self.bytes.extend(x.to_be_bytes());
            }
            Py::Text(text) => self.text(text),
            Py::Tuple(items) => self.tuple(items),
            Py::List(items) => {
                self.op(b']');
                self.memoize();
                self.op(b'(');
                items.iter().for_each(|item| self.value(item));
                self.op(b'e');
            }
            Py::Dict(items) => {
                self.op(b'}');
                self.memoize();
                self.items(items);
            }
            Py::Ordered(items) => {
                self.global("collections", "OrderedDict");
                self.op(b')');
                self.op(b'R');
                self.memoize();
                self.items(items);
                self.value(&dict(vec![("_metadata", dict(vec![("version", Py::Int(1))]))]));
                self.op(b'b');
            }
            Py::Global(module, name) => self.global(module, name),
            Py::Call(module, name, args) => {
                self.global(module, name);
                self.tuple(args);
                self.op(b'R');
                self.memoize();
            }
            Py::Object(module, name, state) => {
                self.global(module, name);
                self.op(b')');
                self.op(0x81);
                self.memoize();
                self.value(&Py::Dict(state.clone()));
                self.op(b'b');
            }
            Py::Tensor(view) => self.tensor(view),
            Py::Parameter(view) => {
                self.global("torch._utils", "_rebuild_parameter");
                self.op(b'(');
                self.tensor(view);
                self.op(0x88);
                self.value(&Py::Call("collections", "OrderedDict", vec![]));
                self.op(b't');
                self.op(b'R');
                self.memoize();
            }
        }
    }

    fn tensor(&mut self, view: &View) {
        let ints = |list: &[i64]| Py::Tuple(list.iter().map(|n| Py::Int(*n)).collect());
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.op(b'(');
        let id = [
            text("storage"),
            Py::Global("torch", view.class),
            text(view.key),
            text("cpu"),
            Py::Int(view.count),
        ];
        self.tuple(&id);
        self.op(b'Q');
        self.int(view.offset);
        self.value(&ints(&view.shape));
        self.value(&ints(&view.strides));
        self.op(0x89);
        self.value(&Py::Call("collections", "OrderedDict", vec![]));
        self.op(b't');
        self.op(b'R');
        self.memoize();
    }
}

/// How to write a zip archive.
#[derive(Clone, Copy, PartialEq)]
pub enum Zip {
    Plain,
    /// Sizes and offsets in zip64 fields, as for archives over 4 GB.
    Wide,
    /// The entries claim to be deflated.
    Deflated,
}

/// A zip archive with its data aligned to 64 bytes, as PyTorch writes it.
pub fn zip(entries: &[(&str, &[u8])], how: Zip) -> Vec<u8> {
    let method: u16 = if how == Zip::Deflated { 8 } else { 0 };
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let header = out.len();
        let pad = (64 - (header + 30 + name.len() + 4) % 64) % 64;
        let size = if how == Zip::Wide { u32::MAX } else { data.len() as u32 };
        let place = if how == Zip::Wide { u32::MAX } else { header as u32 };
        out.extend(b"PK\x03\x04\x00\x00\x00\x00");
        out.extend(method.to_le_bytes());
        out.extend([0; 8]);
        out.extend(size.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((pad as u16 + 4).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(b"FB");
        out.extend((pad as u16).to_le_bytes());
        out.extend(vec![b'Z'; pad]);
        out.extend(*data);
        let mut extra = Vec::new();
        if how == Zip::Wide {
            extra.extend([9, 9, 2, 0, 1, 2, 1, 0, 24, 0]);
            extra.extend((data.len() as u64).to_le_bytes());
            extra.extend((data.len() as u64).to_le_bytes());
            extra.extend((header as u64).to_le_bytes());
        }
        central.extend(b"PK\x01\x02\x00\x00\x00\x00\x00\x00");
        central.extend(method.to_le_bytes());
        central.extend([0; 8]);
        central.extend(size.to_le_bytes());
        central.extend(size.to_le_bytes());
        central.extend((name.len() as u16).to_le_bytes());
        central.extend((extra.len() as u16).to_le_bytes());
        central.extend([0; 10]);
        central.extend(place.to_le_bytes());
        central.extend(name.as_bytes());
        central.extend(extra);
    }
    let start = out.len();
    out.extend(&central);
    if how == Zip::Wide {
        let end = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([0; 12]);
        for n in [entries.len(), entries.len(), central.len(), start] {
            out.extend((n as u64).to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(end.to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    let (count, size, at) = match how {
        Zip::Wide => (u16::MAX, u32::MAX, u32::MAX),
        _ => (entries.len() as u16, central.len() as u32, start as u32),
    };
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0; 2]);
    out
}

/// A checkpoint: `root` pickled, and storages by key.
pub fn checkpoint(root: &Py, storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    checkpoint_as(root, storages, 2, Zip::Plain)
}

pub fn checkpoint_as(root: &Py, storages: &[(&str, Vec<u8>)], protocol: u8, how: Zip) -> Vec<u8> {
    let pickled = pickle(root, protocol);
    let names: Vec<String> = storages.iter().map(|(key, _)| format!("archive/data/{key}")).collect();
    let mut entries: Vec<(&str, &[u8])> =
        vec![("archive/data.pkl", &pickled), ("archive/byteorder", b"little"), ("archive/version", b"3\n")];
    entries.extend(names.iter().map(String::as_str).zip(storages.iter().map(|(_, data)| data.as_slice())));
    zip(&entries, how)
}
