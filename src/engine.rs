//! What a page asks for, without JavaScript: jobs that load checkpoints and draw pictures, and that can be cancelled.

mod asked;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

use crate::cancel::CancelToken;
use crate::checkpoint::{LoraSource, ProgressSink, Source};
use crate::error::{Error, Result};
use crate::image::{Parameters, Rgba};
use crate::library::{Inspection, Library, LoadOptions, Resident, Room};
use crate::pipeline::{
    Peaks, Profile, Request, StepReport, Sweep, SweepRequest, Timings, draw, encode_image, profile, sweep, tune,
};
use crate::platform::now_ms;
use crate::queue::Queue;
use futures_util::future::try_join;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

pub use asked::{GenerateOptions, ProfileOptions};
use asked::{given, parameters, resolve};

/// How a checkpoint is loaded, and loaded again.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Where its files are.
    pub source: Source,
    /// What the caller said of it.
    pub options: LoadOptions,
}

impl Recipe {
    /// The same for one load: see [`Source::begin`].
    fn begin(&self) -> Self {
        let mut options = self.options.clone();
        options.open.vae = options.open.vae.map(|vae| vae.begin());
        Self {
            source: self.source.begin(),
            options,
        }
    }

    /// Ends that load without anything to keep.
    async fn give_up(&self, error: &Error) {
        drop(self.source.end(Err(error)).await);
        if let Some(vae) = &self.options.open.vae {
            drop(vae.end(Err(error)).await);
        }
    }
}

/// A picture and how it was made.
pub struct Picture {
    /// Its pixels.
    pub pixels: Rgba,
    /// What it can be made again with.
    pub parameters: Parameters,
}

/// What a call brought forth.
pub struct Generated {
    /// The pictures.
    pub pictures: Vec<Picture>,
    /// The first one's seed.
    pub seed: u64,
    /// Where the time went, picture by picture.
    pub timings: Vec<Timings>,
    /// What a person should know and is no error.
    pub warnings: Vec<String>,
}

/// A library with jobs.
pub struct Engine {
    /// The checkpoints and the device.
    pub library: Library,
    drawing: Queue,
    loading: Queue,
    jobs: RefCell<HashMap<u32, CancelToken>>,
    /// What the device can do at most, once it was measured.
    peaks: Cell<Option<Peaks>>,
}

impl Engine {
    /// An engine over a library.
    pub fn new(library: Library) -> Self {
        Self {
            library,
            drawing: Queue::default(),
            loading: Queue::default(),
            jobs: RefCell::default(),
            peaks: Cell::default(),
        }
    }

    /// Asks a job to stop. One that has ended, or never was, is left alone.
    pub fn cancel(&self, job: u32) {
        let token = self.jobs.borrow().get(&job).cloned();
        token.iter().for_each(CancelToken::cancel);
    }

    /// Loads a checkpoint as job `job`. Calls wait for one another: each keeps several downloads open, and a browser gives a host few.
    /// Where memory is short, the picture that is being drawn is waited for.
    ///
    /// # Errors
    /// Those of [`Library::load`].
    pub async fn load(&self, job: u32, recipe: &Recipe, progress: &ProgressSink<'_>) -> Result<Rc<Resident>> {
        let job = self.job(job);
        let load = async {
            match self.read(recipe, None, Room::Idle, progress, &job.token).await {
                Err(Error::OutOfMemory(_)) if self.library.is_crowded() => {
                    let _turn = self.drawing.turn().await;
                    self.read(recipe, None, Room::Any, progress, &job.token).await
                }
                loaded => loaded,
            }
        };
        job.token.guard(load).await
    }

    /// Says what a checkpoint is and would need, as job `job`; of its weights only the headers are read.
    ///
    /// # Errors
    /// Those of [`Library::inspect`].
    pub async fn inspect(&self, job: u32, recipe: &Recipe, progress: &ProgressSink<'_>) -> Result<Inspection> {
        let job = self.job(job);
        let inspect = async {
            let _turn = self.loading.turn().await;
            let Recipe { source, options } = recipe.begin();
            let said = self
                .library
                .inspect(source.clone(), &options, progress, &job.token)
                .await;
            // Downloads that began are given up; what has come of them may be of use to a load.
            let given_up = Error::Cancelled("only headers were read".into());
            Recipe { source, options }
                .give_up(said.as_ref().err().unwrap_or(&given_up))
                .await;
            said
        };
        job.token.guard(inspect).await
    }

    /// Draws pictures as job `job`. Calls wait for one another. A checkpoint that is no longer in memory is read again by its
    /// `recipe`, where there is one, while pictures asked for before are drawn; `progress` hears of it. `recipe` is asked only then:
    /// it may be another by that time.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the option; those of [`draw`], of [`Library::load`] and of [`Library::read_encoder`].
    pub async fn generate(
        &self,
        job: u32,
        options: &GenerateOptions,
        recipe: impl Fn() -> Result<Option<Recipe>>,
        progress: &ProgressSink<'_>,
        on_step: impl Fn(StepReport),
    ) -> Result<Generated> {
        let mut asked = now_ms();
        given(options)?;
        let job = self.job(job);
        let token = &job.token;
        let _reserved = self.library.reserve(&options.checkpoint);
        let turn = async { Ok(self.drawing.turn().await) };
        let early = async {
            match self.bring(options, &recipe, Room::Idle, progress, token).await {
                Err(Error::OutOfMemory(_)) if self.library.is_crowded() => Ok(()),
                brought => brought.map(drop),
            }
        };
        let (_turn, ()) = token.guard(try_join(turn, early)).await?;
        let resident = token
            .guard(self.bring(options, &recipe, Room::Any, progress, token))
            .await?;
        let (mut request, count) = resolve(options, &resident)?;
        // Once for all of them.
        request.image = request.image.map(|image| image.resized(request.width, request.height));
        let Library { executor, plans, .. } = &self.library;
        let tuning = tune(executor, &resident.models, plans, &request, token);
        token.guard(tuning).await?;
        // What was loaded and raced is no part of the picture.
        executor.take_began();
        let encoding = now_ms();
        // Guarded: a device that never answers must not keep the next caller waiting.
        let encode = async || {
            token
                .guard(encode_image(executor, &resident.models, plans, &request, token))
                .await
        };
        let encoded = self.library.with_room(&resident, &request, encode).await?;
        let encoding = now_ms() - encoding;
        let mut generated = Generated {
            pictures: Vec::new(),
            seed: request.seed,
            timings: Vec::new(),
            warnings: Vec::new(),
        };
        for i in 0..count {
            let request = Request {
                seed: request.seed.wrapping_add(u64::from(i)),
                ..request.clone()
            };
            let encoded = encoded.as_ref();
            let draw = async || {
                let drawing = draw(executor, &resident.models, plans, &request, encoded, &on_step, token);
                token.guard(drawing).await
            };
            let drawn = self.library.with_room(&resident, &request, draw).await?;
            let (pixels, mut timings, warnings) = drawn;
            timings.start = executor.take_began().map_or(0.0, |began| began - asked);
            timings.encode = if i == 0 && encoded.is_some() { encoding } else { 0.0 };
            asked = now_ms();
            generated.pictures.push(Picture {
                pixels,
                parameters: parameters(&request, &resident),
            });
            generated.timings.push(timings);
            let new = warnings
                .into_iter()
                .filter(|w| !generated.warnings.contains(w))
                .collect::<Vec<_>>();
            generated.warnings.extend(new);
        }
        Ok(generated)
    }

    /// Times what a picture would play, as job `job`, when what was asked for before is drawn. The device's peaks are measured once.
    ///
    /// # Errors
    /// Those of [`Engine::generate`].
    pub async fn profile(
        &self,
        job: u32,
        options: &ProfileOptions,
        recipe: impl Fn() -> Result<Option<Recipe>>,
        progress: &ProgressSink<'_>,
    ) -> Result<Profile> {
        let what = options.what()?;
        let options = options.picture();
        let job = self.job(job);
        let token = &job.token;
        let _reserved = self.library.reserve(&options.checkpoint);
        let turn = async { Ok(self.drawing.turn().await) };
        let _turn = token.guard(turn).await?;
        let resident = token
            .guard(self.bring(&options, &recipe, Room::Any, progress, token))
            .await?;
        let (request, _) = resolve(&options, &resident)?;
        let Library { executor, plans, .. } = &self.library;
        let tuning = tune(executor, &resident.models, plans, &request, token);
        token.guard(tuning).await?;
        let profile = async || {
            let profiling = profile(
                executor,
                &resident.models,
                plans,
                &request,
                what,
                self.peaks.get(),
                token,
            );
            token.guard(profiling).await
        };
        let measured = self.library.with_room(&resident, &request, profile).await?;
        self.peaks.set(Some(measured.peak));
        Ok(measured)
    }

    /// Times the operations of a model that is not there, as job `job`, after what was asked for before.
    ///
    /// # Errors
    /// Those of [`sweep`].
    pub async fn sweep(&self, job: u32, request: &SweepRequest) -> Result<Sweep> {
        let job = self.job(job);
        let token = &job.token;
        let turn = async { Ok(self.drawing.turn().await) };
        let _turn = token.guard(turn).await?;
        let Library { executor, plans, .. } = &self.library;
        let swept = token
            .guard(sweep(executor, plans, request, self.peaks.get(), token))
            .await?;
        self.peaks.set(Some(swept.peak));
        Ok(swept)
    }

    /// Lays LoRAs over a checkpoint, in place of those that lie there, as job `job`: after what was asked for before is drawn. One
    /// that is no longer in memory is read again by its `recipe`, where there is one, with these.
    ///
    /// # Errors
    /// Those of [`Library::set_loras`], and of [`Library::load`]. The former LoRAs stay, or come back with the checkpoint.
    pub async fn set_loras(
        &self,
        job: u32,
        id: &str,
        loras: &[LoraSource],
        recipe: Option<&Recipe>,
        progress: &ProgressSink<'_>,
    ) -> Result<Rc<Resident>> {
        let job = self.job(job);
        let _reserved = self.library.reserve(id);
        let set = async {
            let _drawing = self.drawing.turn().await;
            let _loading = self.loading.turn().await;
            match (self.library.get(id), recipe) {
                (Err(_), Some(recipe)) => {
                    let mut recipe = recipe.clone();
                    recipe.options.loras = loras.into();
                    self.read_now(&recipe, Some(id), Room::Any, progress, &job.token).await
                }
                // Not held over it: the library lets go of what it replaces.
                (found, _) => {
                    drop(found?);
                    let set = self.library.set_loras(id, loras, Room::Any, progress, &job.token);
                    set.await
                }
            }
        };
        job.token.guard(set).await
    }

    /// The checkpoint that is to be drawn with, read again if it has to be, with what an image needs, if there is one.
    async fn bring(
        &self,
        options: &GenerateOptions,
        recipe: &impl Fn() -> Result<Option<Recipe>>,
        room: Room,
        progress: &ProgressSink<'_>,
        token: &CancelToken,
    ) -> Result<Rc<Resident>> {
        let id = options.checkpoint.as_str();
        let resident = match self.library.get(id) {
            Ok(resident) => resident,
            Err(missing) => {
                let mut recipe = recipe()?.ok_or(missing)?;
                recipe.options.encodes |= options.image.is_some();
                self.read(&recipe, Some(id), room, progress, token).await?
            }
        };
        // What cannot be drawn is refused before it waits, and before more is read for it.
        resolve(options, &resident)?;
        if options.image.is_none() || resident.models.encoder.is_some() {
            return Ok(resident);
        }
        let _turn = self.loading.turn().await;
        // It may have been let go while this waited; then all of it is read again.
        if let Err(missing) = self.library.get(id) {
            let mut recipe = recipe()?.ok_or(missing)?;
            recipe.options.encodes = true;
            return self.read_now(&recipe, Some(id), room, progress, token).await;
        }
        let unknown = || {
            Error::NotFound(format!(
                "checkpoint {id:?}: where its encoder is read from is not known"
            ))
        };
        let recipe = recipe()?.ok_or_else(unknown)?;
        let Recipe { source, options } = recipe.begin();
        let read = self
            .library
            .read_encoder(id, source.clone(), &options, room, progress, token)
            .await;
        // What is kept of the checkpoint stays what it was.
        let given_up = Error::Cancelled("only the encoder was read".into());
        Recipe { source, options }
            .give_up(read.as_ref().err().unwrap_or(&given_up))
            .await;
        read
    }

    /// Reads a checkpoint when it is its turn; `again` is the id of one that was here before, and may have come back meanwhile.
    async fn read(
        &self,
        recipe: &Recipe,
        again: Option<&str>,
        room: Room,
        progress: &ProgressSink<'_>,
        token: &CancelToken,
    ) -> Result<Rc<Resident>> {
        let _turn = self.loading.turn().await;
        self.read_now(recipe, again, room, progress, token).await
    }

    async fn read_now(
        &self,
        recipe: &Recipe,
        again: Option<&str>,
        room: Room,
        progress: &ProgressSink<'_>,
        token: &CancelToken,
    ) -> Result<Rc<Resident>> {
        if let Some(Ok(resident)) = again.map(|id| self.library.get(id)) {
            return Ok(resident);
        }
        let Recipe { source, mut options } = recipe.begin();
        if let Some(id) = again {
            (options.id, options.again) = (Some(id.into()), true);
        }
        let loaded = self.library.load(source.clone(), &options, room, progress, token).await;
        let end = loaded.as_ref().map(|r| (r.id.as_str(), r.name.as_str(), r.bytes));
        // Cut off here, it would stay without anyone knowing its id.
        let id = loaded.as_ref().ok().map(|r| r.id.clone());
        let mut unknown = Unknown(&self.library, id.filter(|_| again.is_none()));
        // What could not be kept is no reason not to draw; the keeper says so by itself.
        drop(source.end(end).await);
        if let Some(vae) = &options.open.vae {
            let end = loaded.as_ref().map(|r| {
                let bytes = r.components.iter().filter(|c| c.name == "vae").map(|c| c.bytes).sum();
                (r.vae.as_deref().unwrap_or_default(), bytes)
            });
            drop(vae.end(end).await);
        }
        unknown.1 = None;
        loaded
    }

    fn job(&self, number: u32) -> Job<'_> {
        let token = CancelToken::default();
        self.jobs.borrow_mut().insert(number, token.clone());
        Job {
            engine: self,
            number,
            token,
        }
    }
}

/// A checkpoint that nobody was told of: it is let go.
struct Unknown<'a>(&'a Library, Option<String>);

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        // If it is no longer there, all the better.
        self.1.iter().for_each(|id| drop(self.0.unload(id)));
    }
}

/// A job under way; it is forgotten however it ends.
struct Job<'a> {
    engine: &'a Engine,
    number: u32,
    token: CancelToken,
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        self.engine.jobs.borrow_mut().remove(&self.number);
    }
}
