"""SNOMED CT codes of classes, as used in DICOM and 3D Slicer.

A class has the code that the plan gives it. Without one, its complete name is looked up
in the table below, which omits ambiguous names: "head" and "anterior" are parts of many
organs. Nothing else is inferred from a name.
"""

from __future__ import annotations

import hashlib
import re

from u2net_tf.plan.anatomy import MAX_MEANING, PRIVATE_SCHEME, Anatomy, Code
from u2net_tf.plan.labels import Label

STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
# Of a class without a code only the location is known.
UNKNOWN = Code("309825002", "SCT", "Spatial and Relational Concept")
SIDES = {
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
}


def find_anatomy(label: Label) -> Anatomy:
    """Returns the code of a class: the plan's, that of its name, or a private one."""
    if label.anatomy is not None:
        return label.anatomy
    name = " ".join(re.split(r"[\s_-]+", label.name.casefold().strip()))
    name = _SPELLINGS.get(name, name)
    if name in _ABNORMAL:
        return Anatomy(ABNORMAL, _code(_ABNORMAL[name]))
    if name in _STRUCTURES:
        return Anatomy(STRUCTURE, _code(_STRUCTURES[name]))
    for side, code in SIDES.items():
        for organ in (name.removeprefix(f"{side} "), name.removesuffix(f" {side}")):
            organ = _SPELLINGS.get(organ, organ)
            if organ != name and organ in _PAIRED:
                return Anatomy(STRUCTURE, _code(_STRUCTURES[organ]), code)
    # A hash, so that the same name has the same code in every file.
    value = hashlib.sha256(label.name.encode()).hexdigest()[:12].upper()
    meaning = as_long_string(re.sub(r"[\^~|]", " ", label.name))
    return Anatomy(UNKNOWN, Code(value, PRIVATE_SCHEME, meaning))


def as_long_string(text: str) -> str:
    """Converts text to DICOM's LO: 64 characters, no backslashes or control codes."""
    text = "".join(c if c.isprintable() else " " for c in text.replace("\\", "/"))
    return text.strip()[:MAX_MEANING].strip() or "?"


def _code(text: str) -> Code:
    value, _, meaning = text.partition(" ")
    return Code(value, "SCT", meaning)


# SNOMED CT codes and code meanings, as listed in DICOM.
_STRUCTURES = {
    "abdominal aorta": "7832008 Abdominal aorta",
    "adrenal gland": "23451007 Adrenal gland",
    "amygdala": "4958002 Amygdala",
    "aorta": "15825003 Aorta",
    "aortic arch": "57034009 Aortic arch",
    "ascending aorta": "54247002 Ascending aorta",
    "brain": "12738006 Brain",
    "brain stem": "119238007 Brain Stem",
    "breast": "76752008 Breast",
    "caudate nucleus": "11000004 Caudate Nucleus",
    "cecum": "32713005 Cecum",
    "cerebellum": "113305005 Cerebellum",
    "cerebrospinal fluid": "65216001 Cerebrospinal Fluid",
    "clavicle": "51299004 Clavicle",
    "colon": "71854001 Colon",
    "common carotid artery": "32062004 Common carotid artery",
    "common iliac artery": "73634005 Common iliac artery",
    "common iliac vein": "46027005 Common iliac vein",
    "corpus callosum": "88442005 Corpus callosum",
    "descending aorta": "281130003 Descending aorta",
    "duodenum": "38848004 Duodenum",
    "esophagus": "32849002 Esophagus",
    "eye": "81745001 Eye",
    "femoral head": "2812003 Femoral head",
    "femur": "71341001 Femur",
    "fibula": "87342007 Fibula",
    "gallbladder": "28231008 Gallbladder",
    "globus pallidus": "14738005 Globus Pallidus",
    "heart": "80891009 Heart",
    "hepatic vein": "8993003 Hepatic vein",
    "hippocampus": "5366008 Hippocampus",
    "humerus": "85050009 Humerus",
    "inferior vena cava": "64131007 Inferior vena cava",
    "internal carotid artery": "86117002 Internal carotid artery",
    "jejunum": "21306003 Jejunum",
    "kidney": "64033007 Kidney",
    "large intestine": "14742008 Large intestine",
    "larynx": "4596009 Larynx",
    "left atrium": "82471001 Left atrium",
    "left ventricle": "87878005 Left ventricle",
    "liver": "10200004 Liver",
    "lung": "39607008 Lung",
    "mandible": "91609006 Mandible",
    "maxilla": "70925003 Maxilla",
    "optic chiasm": "244453006 Optic chiasm",
    "optic nerve": "18234004 optic nerve",
    "pancreas": "15776009 Pancreas",
    "parotid gland": "45289007 Parotid gland",
    "patella": "64234005 Patella",
    "pericardium": "76848001 Pericardium",
    "placenta": "78067005 Placenta",
    "portal vein": "32764006 Portal vein",
    "prostate": "41216001 Prostate",
    "pulmonary artery": "81040000 Pulmonary artery",
    "pulmonary vein": "122972007 Pulmonary vein",
    "putamen": "89278009 Putamen",
    "rectum": "34402009 Rectum",
    "rib": "113197003 Rib",
    "right atrium": "73829009 Right atrium",
    "right ventricle": "53085002 Right ventricle",
    "sacrum": "54735007 Sacrum",
    "scapula": "79601000 Scapula",
    "seminal vesicle": "64739004 Seminal Vesicle",
    "sigmoid colon": "60184004 Sigmoid colon",
    "skull": "89546000 Skull",
    "small intestine": "30315005 Small intestine",
    "spinal cord": "2748008 Spinal cord",
    "spleen": "78961009 Spleen",
    "splenic vein": "35819009 Splenic vein",
    "sternum": "56873002 Sternum",
    "stomach": "69695003 Stomach",
    "submandibular gland": "54019009 Submandibular gland",
    "superior vena cava": "48345005 Superior vena cava",
    "thalamus": "42695009 Thalamus",
    "thymus": "9875009 Thymus",
    "thyroid": "69748006 Thyroid",
    "tibia": "12611008 Tibia",
    "tongue": "21974007 Tongue",
    "trachea": "44567001 Trachea",
    "urinary bladder": "89837001 Bladder",
    "uterus": "35039007 Uterus",
    "vertebra": "51282000 Vertebra",
}
_PAIRED = (
    *("adrenal gland", "amygdala", "breast", "caudate nucleus", "clavicle"),
    *("common carotid artery", "common iliac artery", "common iliac vein", "eye"),
    *("femoral head", "femur", "fibula", "globus pallidus", "hippocampus", "humerus"),
    *("internal carotid artery", "kidney", "lung", "optic nerve", "parotid gland"),
    *("patella", "pulmonary artery", "putamen", "scapula", "seminal vesicle"),
    *("submandibular gland", "thalamus", "tibia"),
)
_ABNORMAL = {
    "cyst": "367643001 Cyst",
    "edema": "79654002 Edema",
    "lesion": "52988006 Lesion",
    "neoplasm": "108369006 Neoplasm",
    "pleural effusion": "60046008 Pleural effusion",
}
_SPELLINGS = {
    "adrenal": "adrenal gland",
    "bladder": "urinary bladder",
    "brainstem": "brain stem",
    "gall bladder": "gallbladder",
    "ivc": "inferior vena cava",
    "kidneys": "kidney",
    "lungs": "lung",
    "oedema": "edema",
    "oesophagus": "esophagus",
    "parotid": "parotid gland",
    "small bowel": "small intestine",
    "submandibular": "submandibular gland",
    "svc": "superior vena cava",
    "thyroid gland": "thyroid",
    "tumor": "neoplasm",
    "tumour": "neoplasm",
}
