//! The 20-byte STUN header: class and method interleaved in the type field, cookie and transaction id.
//! It knows nothing about attributes.

/// The constant at offset 4 of each message (RFC 8489 section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The length of the fixed header (RFC 8489 section 5).
pub const HEADER_BYTES: usize = 20;

/// The class of a message (RFC 8489 section 5, bits C1 and C0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// The method of a message: 12 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(u16);

impl Method {
    pub const BINDING: Self = Self(0x001);
    pub const ALLOCATE: Self = Self(0x003);
    pub const REFRESH: Self = Self(0x004);
    pub const SEND: Self = Self(0x006);
    pub const DATA: Self = Self(0x007);
    pub const CREATE_PERMISSION: Self = Self(0x008);
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// RFC 6062, as are the next two.
    pub const CONNECT: Self = Self(0x00A);
    pub const CONNECTION_BIND: Self = Self(0x00B);
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);

    /// `None` when the value does not fit the 12 bits of the field.
    pub const fn new(value: u16) -> Option<Self> {
        if value <= 0x0FFF { Some(Self(value)) } else { None }
    }

    pub const fn value(self) -> u16 {
        self.0
    }
}

/// The 96-bit transaction id. In requests of clients it must not be guessable; the randomness is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

/// ```text
///  0                 1
///  2  3  4 5 6 7 8 9 0 1 2 3 4 5
/// |M |M |M|M|M|C|M|M|M|C|M|M|M|M|
/// |11|10|9|8|7|1|6|5|4|0|3|2|1|0|
/// ```
pub(crate) const fn encode_type(class: Class, method: Method) -> u16 {
    let class = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    let m = method.0;
    (m & 0x000F) | ((m & 0x0070) << 1) | ((m & 0x0F80) << 2) | class
}

/// The inverse of [`encode_type`]; the two top bits were checked to be zero.
pub(crate) const fn decode_type(field: u16) -> (Class, Method) {
    let class = match field & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    let method = (field & 0x000F) | ((field >> 1) & 0x0070) | ((field >> 2) & 0x0F80);
    (class, Method(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_field_round_trips_for_every_class_and_method() {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            for value in 0..=0x0FFF {
                let method = Method::new(value).expect("12 bits");
                let field = encode_type(class, method);
                assert_eq!(field & 0xC000, 0);
                assert_eq!(decode_type(field), (class, method));
            }
        }
        assert_eq!(Method::new(0x1000), None);
    }

    #[test]
    fn binding_types_are_the_registered_ones() {
        assert_eq!(encode_type(Class::Request, Method::BINDING), 0x0001);
        assert_eq!(encode_type(Class::Indication, Method::BINDING), 0x0011);
        assert_eq!(encode_type(Class::Success, Method::BINDING), 0x0101);
        assert_eq!(encode_type(Class::Error, Method::ALLOCATE), 0x0113);
    }
}
