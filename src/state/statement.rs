//! stub
/// e
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects(pub u32);
impl Effects { /// n
 pub const NONE: Self = Self(0);
 /// p
 #[must_use] pub fn pin_reason(self)->Option<super::pin::PinReason>{ None } }
/// e
#[must_use] pub fn effects(_text:&[u8])->Effects{Effects::NONE}
