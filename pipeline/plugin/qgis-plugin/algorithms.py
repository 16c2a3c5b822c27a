"""Define the algorithms: QGIS's parameters become options of the program, its files become layers."""

import html
import json
import shlex

from qgis.core import (
    QgsFeature,
    QgsFeatureRequest,
    QgsFields,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingOutputFile,
    QgsProcessingOutputNumber,
    QgsProcessingOutputRasterLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingUtils,
    QgsProject,
    QgsProviderRegistry,
    QgsVectorFileWriter,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QCoreApplication, QThread

from . import program, runner
from .layers import TITLES, Arranged, group_name

WORDS = {
    "--mask": "the parameter 'Cloud mask'",
    "--mask-values": "--mask-values in the parameter 'Further options'",
    "--bands": "the parameter 'Bands'",
    "--aoi": "the parameter 'Only inside'",
    "--other-date": "the parameter 'Scenes of other dates'",
    "--pan": "the parameter 'Panchromatic raster'",
    "--model": "the parameter 'Model'",
    "--detector": "the parameter 'Who looks for cloud'",
    "--samples": "the parameter 'Samples'",
    "--steps": "the parameter 'Diffusion steps'",
    "--scale": "--scale in the parameter 'Further options'",
    "--no-resume": "--no-resume in the parameter 'Further options'",
    "--overwrite": "--overwrite in the parameter 'Further options'",
    "--uncertainty": "the parameter 'Write the error to be expected of each pixel'",
}
"""What options of the command line are called here."""

SET_HERE = ("-h", "--help", "--out", "--progress", "--quiet", "--json")
"""Options that are no further ones: the plugin sets them, or would learn nothing of the outcome."""


class DecrSceneAlgorithm(QgsProcessingAlgorithm):
    """What all of them share: models, layers as paths, and one run of the program."""

    NAME = TITLE = HELP = ""

    def name(self):
        """Return the name in scripts."""
        return self.NAME

    def displayName(self):
        """Return the name in the toolbox."""
        return self.TITLE

    def shortHelpString(self):
        """Return the help text."""
        return self.HELP

    def createInstance(self):
        """Make another algorithm of this kind."""
        return type(self)()

    def canExecute(self):
        """Return whether the program can be run, and what to do if not."""
        trouble = program.trouble()
        return trouble is None, trouble or ""

    def checkParameterValues(self, parameters, context):
        """Refuse before the run where the program is missing, in a script too."""
        trouble = program.trouble()
        return (False, trouble) if trouble else super().checkParameterValues(parameters, context)

    def add_model(self, advanced=True):
        """Add the model, and the other options of a detection or a run."""
        models = program.models()
        self.addParameter(_choice("MODEL", "Model", models, models[0]))
        if advanced:
            file = QgsProcessingParameterFile(
                "MODEL_FILE", "Model file, instead of a model by name", extension="safetensors", optional=True
            )
            bands = QgsProcessingParameterString(
                "BANDS", "Bands, where the file does not name them: blue,green,red,nir", optional=True
            )
            more = QgsProcessingParameterString(
                "MORE", "Further options, as on the command line", optional=True
            )
            for parameter in (
                file,
                bands,
                _choice("DETECTOR", "Who looks for cloud", ["auto", "model", "ukis", "none"], "auto"),
                _choice("DEVICE", "Device", ["auto", "cpu", "cuda"], "auto"),
                more,
            ):
                self.addParameter(_advanced(parameter))

    def model_options(self, parameters, context):
        """Return the options for the parameters of `add_model`."""
        file = self.parameterAsFile(parameters, "MODEL_FILE", context)
        options = ["--model", file or self.parameterAsEnumString(parameters, "MODEL", context)]
        for name in ("DETECTOR", "DEVICE"):
            options += [f"--{name.lower()}", self.parameterAsEnumString(parameters, name, context)]
        bands = self.parameterAsString(parameters, "BANDS", context)
        return [*options, "--bands", bands] if bands else options

    def further_options(self, parameters, context):
        """Return the words of that parameter of `add_model`; at the end of a call they count for more."""
        more = self.parameterAsString(parameters, "MORE", context)
        try:
            words = shlex.split(more)
        except ValueError as error:  # a quotation mark without its twin
            raise QgsProcessingException(f"further options {more!r} cannot be read: {error}") from error
        for word in words:
            if word.split("=")[0] in SET_HERE:
                raise QgsProcessingException(f"further options cannot have {word}: leave it out")
        return words

    def raster(self, parameters, name, context):
        """Return the name that the program opens a raster layer by; ``None``: the parameter is empty."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            if parameters.get(name) not in (None, ""):
                raise QgsProcessingException(self.invalidRasterError(parameters, name))
            return None
        return self.source_of(layer)

    def rasters(self, parameters, name, context):
        """Return the names that the program opens raster layers by."""
        layers = self.parameterAsLayerList(parameters, name, context)
        if not layers and parameters.get(name) not in (None, "", []):
            raise QgsProcessingException(self.invalidRasterError(parameters, name))
        return [self.source_of(layer) for layer in layers]

    def source_of(self, layer):
        """Return the name that the program opens a raster layer by."""
        if layer.providerType() != "gdal":
            raise QgsProcessingException(
                f"{layer.name()} comes from {layer.providerType()}: export it as GeoTIFF and take that"
            )
        parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
        if parts.get("openOptions"):
            options = ", ".join(parts["openOptions"])
            raise QgsProcessingException(
                f"{layer.name()} is opened with options ({options}), which the program does not know: add it "
                "again without, or export it as GeoTIFF"
            )
        return layer.source()

    def area(self, parameters, name, context):
        """Write the selected, unfiltered polygons of a vector layer as GeoPackage; ``None``: no layer.

        They stay in their own CRS, so that they are brought onto the scene as any other file's are.
        """
        source = self.parameterAsSource(parameters, name, context)
        if source is None:
            return None
        if not source.sourceCrs().isValid():
            raise QgsProcessingException(f"{source.sourceName()} has no CRS: set one in its properties")
        path = QgsProcessingUtils.generateTempFilename("area.gpkg")  # QGIS removes it when it ends
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName, options.layerName = "GPKG", "area"
        writer = QgsVectorFileWriter.create(
            path,
            QgsFields(),
            QgsWkbTypes.multiType(source.wkbType()),
            source.sourceCrs(),
            context.transformContext(),
            options,
        )
        # the program tells of invalid polygons; QGIS 3.22 crashes when its own error passes through Python
        unchecked = QgsProcessingFeatureSource.FlagSkipGeometryValidityChecks
        empty = True
        for feature in source.getFeatures(QgsFeatureRequest(), unchecked):
            if feature.hasGeometry():
                polygon = QgsFeature()
                polygon.setGeometry(feature.geometry())
                writer.addFeature(polygon)
                empty = False
        trouble = writer.errorMessage()
        del writer  # which closes the file
        if trouble:
            raise QgsProcessingException(f"The area cannot be written: {trouble}")
        if empty:
            raise QgsProcessingException("The area has no polygons: select some, or clear the filter")
        return path

    def call(self, words, feedback):
        """Run the program; ``(None, "")`` if it was cancelled.

        Raises:
            QgsProcessingException: It failed; the text is its one line.
        """
        command = program.command(*words)
        feedback.pushCommandInfo(shlex.join(command))
        application = QCoreApplication.instance()
        waits = application is not None and QThread.currentThread() == application.thread()
        alive = QCoreApplication.processEvents if waits else (lambda: None)
        try:
            return runner.run(command, program.environment(), feedback, alive)
        except runner.ProgramError as error:
            raise QgsProcessingException(runner.in_words(str(error), WORDS)) from error


class RemoveClouds(DecrSceneAlgorithm):
    """One scene."""

    NAME, TITLE = "removeclouds", "Remove clouds"
    HELP = (
        "Removes the clouds of a whole scene and writes it as a cloud-optimised GeoTIFF in the same place, "
        "with the same bands and tags. Clear ground keeps its values bit for bit. What stood under thick "
        "cloud is made up by a model: the provenance layer says where. Scenes of other dates, if there are "
        "some, take the place of what would be made up; clouds of their own are left out.\n\n"
        "The result lies above the original in one group: switch it off and on, or swipe. A run that was "
        "interrupted goes on when it is called again with the same output."
    )

    def initAlgorithm(self, configuration=None):
        """Add the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Scene with clouds"))
        self.add_model()
        for name, text in (
            ("MASK", "Cloud mask (non-zero is cloud)"),
            ("PAN", "Panchromatic raster to sharpen with"),
        ):
            self.addParameter(QgsProcessingParameterRasterLayer(name, text, optional=True))
        self.addParameter(
            QgsProcessingParameterMultipleLayers(
                "OTHER_DATE", "Scenes of other dates", QgsProcessing.TypeRaster, optional=True
            )
        )
        self.addParameter(
            QgsProcessingParameterFeatureSource(
                "AREA", "Only inside", [QgsProcessing.TypeVectorPolygon], optional=True
            )
        )
        for parameter in (
            _number("STEPS", "Diffusion steps; the model's own otherwise", None, 1, 1000),
            _number("SEED", "Seed of the noise", 0, 0, 2**31 - 1),
            _number("SAMPLES", "Samples; from 2 on their spread is written too", 1, 1, 1000),
        ):
            self.addParameter(_advanced(parameter))
        expected = QgsProcessingParameterBoolean(
            "EXPECTED_ERROR", "Write the error to be expected of each pixel", defaultValue=False
        )
        self.addParameter(_advanced(expected))
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Without clouds"))
        self.addOutput(QgsProcessingOutputRasterLayer("PROVENANCE", "Where each pixel comes from"))
        self.addOutput(QgsProcessingOutputRasterLayer("UNCERTAINTY", "How uncertain each pixel is"))
        self.addOutput(QgsProcessingOutputFile("REPORT", "Report"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run it, and have its outputs loaded."""
        source = self.raster(parameters, "INPUT", context)
        out = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        words = ["process", source, "--out", out, "--overwrite", "--progress", "jsonl"]
        words += self.model_options(parameters, context)
        for name, option in (("MASK", "--mask"), ("PAN", "--pan")):
            path = self.raster(parameters, name, context)
            words += [option, path] if path else []
        for path in self.rasters(parameters, "OTHER_DATE", context):
            words += ["--other-date", path]
        area = self.area(parameters, "AREA", context)
        words += ["--aoi", area] if area else []
        for name in ("STEPS", "SEED", "SAMPLES"):
            if parameters.get(name) is not None:
                words += [f"--{name.lower()}", str(self.parameterAsInt(parameters, name, context))]
        words += ["--uncertainty"] if self.parameterAsBool(parameters, "EXPECTED_ERROR", context) else []
        words += self.further_options(parameters, context)
        end, _ = self.call(words, feedback)
        if end is None:
            return {}
        outputs = end["outputs"]
        self._load(parameters, context, out, outputs)
        return {
            "OUTPUT": out,
            "PROVENANCE": outputs.get("provenance"),
            "UNCERTAINTY": outputs.get("uncertainty"),
            "REPORT": outputs.get("report"),
        }

    def _load(self, parameters, context, out, outputs):
        """Arrange the layers, if the output is to be a layer at all."""
        if not context.willLoadLayerOnCompletion(out):
            return
        original = self.parameterAsRasterLayer(parameters, "INPUT", context)
        project = context.project() or QgsProject.instance()
        for role in TITLES:
            path = out if role == "output" else outputs.get(role)
            if not path:
                continue
            if role != "output":
                details = QgsProcessingContext.LayerDetails(TITLES[role], project, role.upper())
                context.addLayerToLoadOnCompletion(path, details)
            details = context.layerToLoadOnCompletionDetails(path)
            sorts = hasattr(details, "groupName")  # later versions of QGIS make the group themselves
            if sorts:
                details.groupName = group_name(original.name())
                details.layerSortKey = len(TITLES) - list(TITLES).index(role)
            details.setPostProcessor(Arranged(role, path, original, moves=not sorts))


class RemoveCloudsOfFolder(DecrSceneAlgorithm):
    """A folder of scenes."""

    NAME, TITLE = "removecloudsoffolder", "Remove clouds of a folder"
    HELP = (
        "Removes the clouds of all scenes in a folder. One that fails stops no other; the same call again "
        "does only what is missing or out of date; batch.json says what became of each."
    )

    def initAlgorithm(self, configuration=None):
        """Add the parameters."""
        folder = QgsProcessingParameterFile("INPUT", "Folder", behavior=QgsProcessingParameterFile.Folder)
        self.addParameter(folder)
        self.add_model()
        self.addParameter(QgsProcessingParameterBoolean("RECURSIVE", "With the folders in it", False))
        products = "Each folder in it is a scene, as a vendor's product is"
        self.addParameter(QgsProcessingParameterBoolean("FOLDERS", products, False))
        self.addParameter(QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the outputs"))
        self.addOutput(QgsProcessingOutputFile("LEDGER", "What became of each scene"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run it."""
        out = self.parameterAsString(parameters, "OUTPUT", context)
        words = ["batch", self.parameterAsFile(parameters, "INPUT", context), "--out", out]
        words += ["--progress", "jsonl", *self.model_options(parameters, context)]
        for name in ("RECURSIVE", "FOLDERS"):
            words += [f"--{name.lower()}"] if self.parameterAsBool(parameters, name, context) else []
        words += self.further_options(parameters, context)
        end, _ = self.call(words, feedback)
        return {} if end is None else {"OUTPUT": out, "LEDGER": end["outputs"]["ledger"]}


class Inspect(DecrSceneAlgorithm):
    """What would be done."""

    NAME, TITLE = "inspect", "What would be done"
    HELP = (
        "Says what would be done to a scene, without doing it: bands, model, tiles, how cloudy it is, and "
        "from a short trial how long it will take on this machine and what memory and disk it needs."
    )

    def initAlgorithm(self, configuration=None):
        """Add the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Scene"))
        self.add_model()
        self.addParameter(
            QgsProcessingParameterFileDestination("OUTPUT", "What would be done", "HTML (*.html)")
        )
        self.addOutput(QgsProcessingOutputNumber("TILES", "Tiles to restore"))
        self.addOutput(QgsProcessingOutputNumber("SECONDS", "Estimated seconds"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run it, and write its answer as a page."""
        source = self.raster(parameters, "INPUT", context)
        out = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        words = ["inspect", source, "--json", *self.model_options(parameters, context)]
        words += self.further_options(parameters, context)
        end, answer = self.call(words, feedback)
        if end is None:
            return {}
        summary = json.loads(answer)
        try:
            with open(out, "w", encoding="utf-8") as file:
                file.write(f"<html><head><meta charset='utf-8'></head><body>{_table(summary)}</body></html>")
        except OSError as error:
            raise QgsProcessingException(f"{out} cannot be written: {error.strerror}") from error
        for name, value in summary.items():
            feedback.pushInfo(f"{name}: {value}")
        return {
            "OUTPUT": out,
            "TILES": summary.get("tiles to restore"),
            "SECONDS": summary.get("estimate", {}).get("seconds"),
        }


class CloudMask(DecrSceneAlgorithm):
    """The cloud mask alone."""

    NAME, TITLE = "cloudmask", "Cloud mask alone"
    HELP = (
        "Writes where cloud and shadow of a scene are: 1 where they are, 0 elsewhere. 'Remove clouds' takes "
        "it as its cloud mask, also after it was edited."
    )

    def initAlgorithm(self, configuration=None):
        """Add the parameters."""
        self.addParameter(QgsProcessingParameterRasterLayer("INPUT", "Scene"))
        self.add_model()
        self.addParameter(QgsProcessingParameterRasterDestination("OUTPUT", "Cloud mask"))

    def processAlgorithm(self, parameters, context, feedback):
        """Run it."""
        source = self.raster(parameters, "INPUT", context)
        out = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        words = ["mask", source, "--out", out, "--overwrite", "--progress", "jsonl"]
        words += self.model_options(parameters, context)
        end, _ = self.call([*words, *self.further_options(parameters, context)], feedback)
        return {} if end is None else {"OUTPUT": out}


def _choice(name, text, values, default):
    return QgsProcessingParameterEnum(name, text, values, False, default, False, usesStaticStrings=True)


def _number(name, text, default, low, high):
    return QgsProcessingParameterNumber(
        name, text, QgsProcessingParameterNumber.Integer, default, default is None, low, high
    )


def _advanced(parameter):
    parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
    return parameter


def _table(summary):
    cells = ((html.escape(name), _cell(value)) for name, value in summary.items())
    rows = "".join(f"<tr><th align='left'>{name}</th><td>{value}</td></tr>" for name, value in cells)
    return f"<table cellpadding='4'>{rows}</table>"


def _cell(value):
    if isinstance(value, dict):
        return _table(value)
    if isinstance(value, list):
        return html.escape(", ".join(map(str, value)))
    return html.escape("" if value is None else str(value))
