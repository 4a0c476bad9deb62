//! Spheres and boxes on a ground, in the light of a lamp with soft shadows: a small ray tracer.

use super::canvas::{Canvas, Rgb};
use super::colour::{Palette, lit, mix};
use super::paint::Paint;
use super::{Random, span};

type Vec3 = [f32; 3];

fn dot(a: Vec3, b: Vec3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn sum(a: Vec3, b: Vec3, scale: f32) -> Vec3 {
    std::array::from_fn(|c| a[c] + scale * b[c])
}

fn unit(a: Vec3) -> Vec3 {
    let length = dot(a, a).sqrt().max(1e-9);
    a.map(|v| v / length)
}

enum Form {
    Sphere(f32),
    /// half sides, and the turn about the vertical (cosine, sine)
    Box(Vec3, [f32; 2]),
}

struct Solid {
    form: Form,
    centre: Vec3,
    paint: Paint,
    gloss: f32,
}

/// Where a ray meets a surface: how far, the normal there, and the place on the surface's paint.
struct Hit {
    way: f32,
    normal: Vec3,
    place: [f32; 2],
}

impl Solid {
    fn meet(&self, from: Vec3, towards: Vec3) -> Option<Hit> {
        let from = sum(from, self.centre, -1.0);
        match self.form {
            Form::Sphere(radius) => {
                let b = dot(from, towards);
                let root = b * b - dot(from, from) + radius * radius;
                let way = -b - root.max(0.0).sqrt();
                (root > 0.0 && way > 1e-3).then(|| {
                    let normal = unit(sum(from, towards, way));
                    // Seen from above and ahead: longitudes would meet in a seam.
                    let place = [normal[0] + normal[2], normal[1] - 0.5 * normal[2]];
                    Hit { way, normal, place: place.map(|v| 100.0 * radius * v) }
                })
            }
            Form::Box(half, [cos, sin]) => {
                let turn = |v: Vec3| [cos * v[0] + sin * v[2], v[1], cos * v[2] - sin * v[0]];
                let (from, towards) = (turn(from), turn(towards));
                let (mut near, mut far, mut axis) = (f32::MIN, f32::MAX, 0);
                for c in 0..3 {
                    let inverse = 1.0 / if towards[c].abs() < 1e-9 { 1e-9 } else { towards[c] };
                    let (a, b) = ((-half[c] - from[c]) * inverse, (half[c] - from[c]) * inverse);
                    if a.min(b) > near {
                        (near, axis) = (a.min(b), c);
                    }
                    far = far.min(a.max(b));
                }
                (near < far && near > 1e-3).then(|| {
                    let place = sum(from, towards, near);
                    let mut normal = [0.0; 3];
                    normal[axis] = -towards[axis].signum();
                    let normal =
                        [cos * normal[0] - sin * normal[2], normal[1], cos * normal[2] + sin * normal[0]];
                    let [u, v] = [(axis + 1) % 3, (axis + 2) % 3].map(|c| 100.0 * place[c]);
                    Hit { way: near, normal, place: [u, v] }
                })
            }
        }
    }

    /// Whether it stands between a point and the lamp; cheaper than [`Solid::meet`].
    fn hides(&self, from: Vec3, towards: Vec3) -> bool {
        let from = sum(from, self.centre, -1.0);
        match self.form {
            Form::Sphere(radius) => {
                let b = dot(from, towards);
                b < 0.0 && dot(from, from) - b * b < radius * radius
            }
            Form::Box(half, [cos, sin]) => {
                let turn = |v: Vec3| [cos * v[0] + sin * v[2], v[1], cos * v[2] - sin * v[0]];
                let (from, towards) = (turn(from), turn(towards));
                let (mut near, mut far) = (1e-3f32, f32::MAX);
                for c in 0..3 {
                    let inverse = 1.0 / if towards[c].abs() < 1e-9 { 1e-9 } else { towards[c] };
                    let (a, b) = ((-half[c] - from[c]) * inverse, (half[c] - from[c]) * inverse);
                    (near, far) = (near.max(a.min(b)), far.min(a.max(b)));
                }
                near < far
            }
        }
    }
}

struct World {
    solids: Vec<Solid>,
    ground: Paint,
    sky: [Rgb; 2],
    /// towards the lamp, and two directions across it
    lamp: [Vec3; 3],
    /// light in the shadow
    ambient: f32,
    eye: Vec3,
    /// directions: right, up, ahead
    view: [Vec3; 3],
}

/// Samples of a pixel, each with its quarter of the lamp.
const SAMPLES: [[f32; 2]; 4] = [[0.125, 0.375], [0.375, 0.875], [0.625, 0.125], [0.875, 0.625]];

impl World {
    fn draw(palette: &Palette, random: &mut Random) -> Self {
        let count = 2 + random.index(6);
        let solids = (0..count).map(|_| {
            let size = (0.45 * (0.5 * random.normal() as f32).exp()).clamp(0.15, 1.1);
            let (form, height) = match random.chance(0.5) {
                true => (Form::Sphere(size), size),
                false => {
                    let half = [(); 3].map(|()| size * span(random, 0.4, 1.1));
                    let (sin, cos) = span(random, 0.0, 3.2).sin_cos();
                    (Form::Box(half, [cos, sin]), half[1])
                }
            };
            let centre = [1.3 * random.normal() as f32, height, span(random, -1.0, 3.0)];
            let paint = Paint::draw(palette, 60.0 * size, 0.45, random);
            Solid {
                form,
                centre,
                paint,
                gloss: if random.chance(0.4) { span(random, 0.1, 0.7) } else { 0.0 },
            }
        });
        let solids = solids.collect();
        let ground = Paint::draw(palette, span(random, 60.0, 300.0), 0.75, random);
        let [low, high] = palette.pair(random, 0.1);
        let towards = unit([span(random, -1.0, 1.0), span(random, 0.5, 1.4), span(random, -1.0, 0.4)]);
        let size = span(random, 0.02, 0.25);
        let across = unit([towards[2], 0.0, -towards[0] + 1e-3]);
        let other = cross(towards, across);
        let pitch = span(random, 0.1, 0.7);
        let eye = [0.0, 0.6 + 3.2 * pitch.sin(), -3.6];
        let (sin, cos) = pitch.sin_cos();
        World {
            solids,
            ground,
            sky: [high, low],
            lamp: [towards, across.map(|v| v * size), other.map(|v| v * size)],
            ambient: span(random, 0.2, 0.5),
            eye,
            view: [[1.0, 0.0, 0.0], [0.0, cos, sin], [0.0, -sin, cos]],
        }
    }

    /// The light that reaches the eye from this direction, for one sample of the lamp.
    fn seen(&self, towards: Vec3, sample: usize) -> Rgb {
        let mut best: Option<(Hit, &Paint, f32)> = None;
        for solid in &self.solids {
            if let Some(hit) = solid.meet(self.eye, towards)
                && best.as_ref().is_none_or(|(b, ..)| hit.way < b.way)
            {
                best = Some((hit, &solid.paint, solid.gloss));
            }
        }
        if towards[1] < -1e-3 {
            let way = -self.eye[1] / towards[1];
            if best.as_ref().is_none_or(|(b, ..)| way < b.way) {
                let place = sum(self.eye, towards, way);
                let hit = Hit { way, normal: [0.0, 1.0, 0.0], place: [100.0 * place[0], 100.0 * place[2]] };
                best = Some((hit, &self.ground, 0.0));
            }
        }
        let sky = mix(self.sky[0], self.sky[1], (2.0 * towards[1] + 0.2).clamp(0.0, 1.0));
        let Some((hit, paint, gloss)) = best else { return sky };
        let place = sum(sum(self.eye, towards, hit.way), hit.normal, 2e-3);
        let mut light = 0.0;
        for part in SAMPLES {
            // Sixteen places on the lamp: four samples with four each.
            let [u, v] = [part[0] + SAMPLES[sample][1], part[1] + SAMPLES[sample][0]];
            let lamp = sum(sum(self.lamp[0], self.lamp[1], u - 1.0), self.lamp[2], v - 1.0);
            let angle = dot(hit.normal, unit(lamp)).max(0.0);
            if angle > 0.0 && !self.solids.iter().any(|solid| solid.hides(place, unit(lamp))) {
                light += 0.25 * angle;
            }
        }
        // The sky lights what looks up; what touches the ground is a little darker.
        let open = 0.7 + 0.3 * hit.normal[1];
        let base =
            lit(paint.at(hit.place[0], hit.place[1]), self.ambient * open + (1.1 - self.ambient) * light);
        let mirror = sum(towards, hit.normal, -2.0 * dot(towards, hit.normal));
        let shine = dot(mirror, self.lamp[0]).max(0.0).powi(40) * gloss * if light > 0.0 { 1.0 } else { 0.0 };
        let rim = gloss * 0.3 * (1.0 + dot(towards, hit.normal)).clamp(0.0, 1.0).powi(3);
        let colour = mix(base.map(|v| v + shine), sky, rim);
        // Haze, and an end to the ground's detail before it is finer than pixels.
        mix(colour, sky, 1.0 - (-0.02 * hit.way * hit.way).exp())
    }
}

fn cross(a: Vec3, b: Vec3) -> Vec3 {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// A still life that fills the canvas.
pub fn still_life(canvas: &mut Canvas, palette: &Palette, random: &mut Random) {
    let world = World::draw(palette, random);
    let side = canvas.side as f32;
    let zoom = span(random, 0.35, 0.8);
    let [right, up, ahead] = world.view;
    *canvas = Canvas::painted(canvas.side, |x, y| {
        let mut colour = [0.0; 3];
        for (sample, [dx, dy]) in SAMPLES.iter().enumerate() {
            let (u, v) = (2.0 * (x - 0.5 + dx) / side - 1.0, 1.0 - 2.0 * (y - 0.5 + dy) / side);
            let towards = unit(sum(sum(ahead, right, zoom * u), up, zoom * v));
            colour = sum(colour, world.seen(towards, sample), 0.25);
        }
        colour
    });
}
