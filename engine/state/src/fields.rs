//! Serialising what has fields, written once for all serialisers of this crate.

/// Implements serde's contracts for tuples, structs and their variants on a type that has `part`, which serialises a
/// field, and `skipped`, which says what becomes of one that is left out.
macro_rules! fields {
    ([$($generics:tt)*] $type:ty, $error:ty) => {
        $crate::fields::fields!(@ [$($generics)*] $type, $error, SerializeTuple, serialize_element, ());
        $crate::fields::fields!(@ [$($generics)*] $type, $error, SerializeTupleStruct, serialize_field, ());
        $crate::fields::fields!(@ [$($generics)*] $type, $error, SerializeTupleVariant, serialize_field, ());
        $crate::fields::fields!(@ [$($generics)*] $type, $error, SerializeStruct, serialize_field, (name));
        $crate::fields::fields!(@ [$($generics)*] $type, $error, SerializeStructVariant, serialize_field, (name));
    };
    (@ [$($generics:tt)*] $type:ty, $error:ty, $contract:ident, $method:ident, ($($name:ident)?)) => {
        impl<$($generics)*> serde::ser::$contract for $type {
            type Ok = ();
            type Error = $error;

            #[inline(always)]
            fn $method<T: serde::Serialize + ?Sized>(
                &mut self,
                $($name: &'static str,)?
                value: &T,
            ) -> std::result::Result<(), $error> {
                $(let _ = $name;)?
                self.part(value)
            }

            $(fn skip_field(&mut self, $name: &'static str) -> std::result::Result<(), $error> {
                self.skipped($name)
            })?

            #[inline(always)]
            fn end(self) -> std::result::Result<(), $error> {
                Ok(())
            }
        }
    };
}

pub(crate) use fields;
