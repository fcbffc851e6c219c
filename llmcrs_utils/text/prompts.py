"""All fixed text that a model reads besides the data: one set of prompts per language (paper section 3, Tables 5-8)."""

import re
from dataclasses import dataclass

LETTERS = "ABCDEFGHIJKLMNOPQRST"  # names of the 20 candidates


@dataclass(frozen=True)
class Prompts:
    """Separators, CRS prompts and LLM instructions of one language; ``{d}`` is the domain, ``{hint}`` the help clause."""

    # separators
    space: str  # between words; "" in a language without spaces between words
    pair: str  # attribute and value
    items: str  # members of a set
    values: str  # values of one attribute
    facts: str  # attributes of one product
    # the dialogue as an LLM reads it
    user: str
    system: str
    dialogue: str
    current: str
    # closing prompts of the CRS, by task (section 3.3)
    crs: dict[str, str]
    # instructions of the LLM, by task, and the clause that a CRS's help adds
    instruction: dict[str, str]
    description: str  # the instruction of recommend if the LLM's answer is the description of a product
    hint: dict[str, str]
    # lines of the LLM's input
    candidates: str
    candidate: str  # {letter}
    fact: str  # {attribute} {values}
    needs: str
    ask: str
    satisfying: str
    satisfied: str  # {letter}
    ranked: str  # {rank}; a CRS's rank of a candidate beside its description
    unknown: str  # in place of a candidate's description if nothing is known of it
    help: dict[str, str]
    hidden_relations: tuple[str, ...]  # relations that are never shown: they would name the shop or repeat the category


CHINESE = Prompts(
    space="",
    pair="：",
    items="；",
    values="、",
    facts="，",
    user="用户：",
    system="客服：",
    dialogue="售前对话：",
    current="当前输入：",
    crs={
        "understand": "。请识别前一句中的关键词并给出分类，以'属性：属性值'的方式，使用'；'连接：",
        "elicit": "。请基于前文给出合适的提问属性集合，以获取更多的需求信息：",
        "recommend": "",
        "respond": "。生成系统回复：",
    },
    instruction={
        "understand": "根据{d}售前对话，{hint}识别当前用户或者客服输入中涉及的商品相关的属性值和对应的属性。\n"
        "针对用户输入，需要识别出属性和属性值。客服输入中属性值可能为空。",
        "elicit": "根据{d}售前对话，{hint}选择一系列的属性，来引导用户提供更多关于需求的偏好信息。结果中可以包含属性值，也可以不包含属性值。",
        "recommend": "根据{d}售前对话中用户表达的需求和偏好信息以及候选商品信息，{hint}从候选商品A-T中选择最有可能满足用户需求、偏好的商品推荐给用户。",
        "respond": "根据{d}售前对话中已获取的信息、引导用户需求的属性、满足用户需求的商品信息，{hint}生成回应用户需求且用户容易理解的通俗回复。",
    },
    description="根据{d}售前对话中用户表达的需求和偏好信息，{hint}写出最有可能满足用户需求、偏好的商品的信息。",
    hint={
        "understand": "并参考对话式推荐系统的识别结果，",
        "elicit": "并参考对话式推荐系统的属性预测结果，",
        "recommend": "并参考对话式推荐系统的商品推荐排序结果，",
        "respond": "并参考对话式推荐系统生成的回复，",
    },
    candidates="各候选商品对应的属性和属性值：",
    candidate="{letter}的",
    fact="{attribute}是{values}",
    needs="已获取的用户需求偏好信息：",
    ask="引导用户需求的属性：",
    satisfying="满足用户需求的商品信息：",
    satisfied="商品{letter}满足用户需求，{letter}的",
    ranked="推荐系统排第{rank}",
    unknown="信息未知",
    help={
        "understand": "对话式推荐系统识别的结果：",
        "elicit": "对话式推荐系统预测的属性：",
        "recommend": "对话式推荐系统推荐的Top1-20商品排序结果：",
        "respond": "对话式推荐系统生成的回复：",
    },
    hidden_relations=("品牌", "一级类目", "叶子类目"),
)

ENGLISH = Prompts(
    space=" ",
    pair=": ",
    items="; ",
    values=", ",
    facts=", ",
    user="User: ",
    system="Staff: ",
    dialogue="Pre-sales dialogue: ",
    current="Current input: ",
    crs={  # Z_U, Z_A and Z_G of section 3.3
        "understand": " Identify attributes and values:",
        "elicit": " Select an attribute to ask:",
        "recommend": "",
        "respond": " Generate a response:",
    },
    instruction={
        "understand": "In this pre-sales dialogue about {d}, {hint}identify the product attributes and their values in the current "
        "input of the user or the staff.\nA user's input needs both attribute and value; a value in the staff's input may be empty.",
        "elicit": "In this pre-sales dialogue about {d}, {hint}choose the attributes to ask about next, to learn more of what the "
        "user needs. The result may hold attribute values or none.",
        "recommend": "From the needs and preferences that the user expressed in this pre-sales dialogue about {d} and from the "
        "candidates' information, {hint}choose among the candidates A-T the product most likely to satisfy the user.",
        "respond": "From what is known in this pre-sales dialogue about {d}, the attributes to ask about and the products that "
        "satisfy the user, {hint}write a reply that answers the user in plain words.",
    },
    description="From the needs and preferences that the user expressed in this pre-sales dialogue about {d}, {hint}describe the "
    "product most likely to satisfy the user.",
    hint={
        "understand": "with the attributes found by the conversational recommender system in mind, ",
        "elicit": "with the attributes predicted by the conversational recommender system in mind, ",
        "recommend": "with the ranking of the conversational recommender system in mind, ",
        "respond": "with the reply of the conversational recommender system in mind, ",
    },
    candidates="Attributes of the candidates: ",
    candidate="{letter}: ",
    fact="{attribute} is {values}",
    needs="Needs known so far: ",
    ask="Attributes to ask about: ",
    satisfying="Products that satisfy the user: ",
    satisfied="Product {letter} satisfies the user, {letter}: ",
    ranked="ranked {rank} by the recommender system",
    unknown="nothing is known",
    help={
        "understand": "Found by the conversational recommender system: ",
        "elicit": "Attributes predicted by the conversational recommender system: ",
        "recommend": "Top 1-20 ranking of the conversational recommender system: ",
        "respond": "Reply of the conversational recommender system: ",
    },
    hidden_relations=("品牌", "一级类目", "叶子类目"),
)

PROMPTS = {"zh": CHINESE, "en": ENGLISH}
# How an LLM ranks: by the letter that it answers (the paper), by a score of each candidate, or by how likely it would describe each.
RANKINGS = ("letter", "candidates", "likelihood")

# How instruction and input become the prompt of an LLM.
TEMPLATES = {
    "plain": "{instruction}\n{input}\n",
    # Chinese-Alpaca was tuned with Alpaca's template.
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n{input}\n\n### Response: ",
    # ChatGLM reads the bare text if there is no history. Its tokenizer adds [gMASK] <sop>.
    "bare": "{instruction}{input}",
    # One message of the user, in the checkpoint's own chat template.
    "chat": "{instruction}\n{input}",
}


def prompts_of(language: str) -> Prompts:
    """The prompt set of ``zh`` or ``en``."""
    if language not in PROMPTS:
        raise ValueError(f"language {language!r} has no prompt set; known: {', '.join(PROMPTS)}")
    return PROMPTS[language]


def parse_needs(text: str, prompts: Prompts) -> list[tuple[str, str]]:
    """``属性：值；属性：值`` -> [(attribute, value)]; a member without the pair separator has value ``""``.

    Blanks at the ends, and in a language without spaces all blanks, carry no meaning (tokenizers add and drop them).
    """
    pairs = []
    for member in split_set(text, prompts):
        attribute, _, value = member.partition(prompts.pair.strip())
        if attribute.strip():
            pairs.append((attribute.strip(), value.strip()))
    return pairs


def parse_attributes(text: str, prompts: Prompts) -> list[str]:
    """``属性；属性`` -> [attribute]; a value written behind an attribute is dropped (the instruction allows it)."""
    return [attribute for attribute, _ in parse_needs(text, prompts)]


def split_set(text: str, prompts: Prompts) -> list[str]:
    text = "".join(text.split()) if not prompts.space else " ".join(text.split())
    return [member.strip() for member in text.split(prompts.items.strip()) if member.strip()]


def has_chinese(text: str) -> bool:
    """Whether a text has a Chinese character."""
    return re.search("[\u4e00-\u9fff]", text) is not None
