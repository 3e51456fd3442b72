//! `multipart/form-data`: the form of pages and of curl's `-F`.

mod fields;

use actix_multipart::Multipart;
use actix_web::{HttpRequest, web};
use fault::Fault;

use self::fields::{Bounds, Wrong};
use crate::body;
use crate::classify::{Wanted, number, truth};
use crate::site::Site;

/// Reads a form's `image` files (also `images`, `file`), `model`, `top_k` and `keep`. File names go into the history, made safe, and
/// are not used for anything else.
///
/// # Errors
/// A fault that names the field, the value and the limit.
pub(crate) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    site: &web::Data<Site>,
) -> Result<Wanted, Fault> {
    let time = site.process.settings.limits.body_time;
    let read = tokio::time::timeout(time, read_fields(request, payload, site)).await;
    read.map_err(|_| body::slow(time))?
}

async fn read_fields(request: &HttpRequest, payload: web::Payload, site: &web::Data<Site>) -> Result<Wanted, Fault> {
    let limits = &site.process.settings.limits;
    let bounds = Bounds { picture: limits.picture.as_u64() as usize, pictures: limits.pictures_per_call };
    let mut share = site.process.bodies.share();
    let form = Multipart::new(request.headers(), payload);
    let filled = fields::read(form, &bounds, |bytes| share.grow(bytes)).await.map_err(fault)?;
    let top_k = filled.top_k.map(|text| number("top_k", &text)).transpose()?;
    if filled.images.is_empty() {
        return Err(
            Fault::invalid_input("there is no picture in the form: its field is called `image`").with_param("image")
        );
    }
    let keep = filled.keep.map(|text| truth("keep", &text)).transpose()?;
    let mut wanted = Wanted::from_form(filled.model, filled.images, top_k, share);
    (wanted.names, wanted.keep) = (filled.names, keep);
    Ok(wanted)
}

fn fault(wrong: Wrong<Fault>) -> Fault {
    match wrong {
        Wrong::Broken(error) => body::broken(&error),
        Wrong::TooLarge { field, is_file, have, limit } => {
            let what = if is_file { "the picture".to_owned() } else { format!("the field {field:?}") };
            body::too_large(have, limit, &what).with_param(field)
        }
        Wrong::TooManyFields(most) => Fault::too_large(format!("the form has more than {most} fields")),
        Wrong::TooManyPictures(most) => {
            Fault::too_large(format!("more than {most} pictures in one call")).with_param("images")
        }
        Wrong::NotUtf8(field) => Fault::invalid_input(format!("the field {field:?} is not UTF-8")),
        Wrong::Denied(fault) => fault,
    }
}
