"""English: words, cues and phrases."""

import re

from cauce.providers.offline.tongue import Phrases, Tongue, word_set

ENGLISH = Tongue(
    language="en",
    stemmer="english",
    stop=word_set(
        """a an the and or but if then than so as at by for from in into of on onto out over to up with without within
        about is are was were be been being am do does did done doing have has had having can could will
        would shall should may might must i me my mine myself you your yours we us our ours he him his she
        her it its they them their this that these those there here what which who whom whose when where why
        how no nor only own same too very just also any some all each every both more most other such s t re
        ve ll d m don doesn didn isn aren won please hi hello hey ok okay let lets it's i'm im because while
        again once like much many time times hour"""
    ),
    weak=word_set(
        """get give want need make made use using used set way work works working thing things something tell explain
        describe show know mean means happen happens happening exist exists possible able help try take
        takes put go goes come comes add change configure configuration setup create find see look new cauce
        guide exactly actually right kind question answer information example please return returns support
        supports supported send sends let allow current currently default connect point turn enable activate
        pass several first second anywhere somewhere difference versus protect open call gracefully cleanly
        properly"""
    ),
    recall=word_set(
        """say said tell told mention mentioned ask asked remember earlier before write wrote call called previously"""
    ),
    synonyms=(
        "configure setup define",
        "send sends sent",
        "disconnect disconnection leave drop drops",
        "configuration settings config setting options",
        "start launch run boot begin",
        "off disable deactivate",
        "make create generate new",
        "need require requirement requirements",
        "stop shutdown shut quit exit terminate end",
        "install installation download",
        "change switch modify edit",
        "another different",
        "key keys credential token apikey password passwords",
        "cascade route chain",
        "fallback failover fall",
        "resume continue reconnect reconnection",
        "cancel abort interrupt",
        "discovery discover find found detect autodetect detection search look",
        "error errors status code",
        "error errors failure fail fails failing problem",
        "delete remove",
        "list show see available",
        "command commands cli",
        "folder directory",
        "limit limits maximum max size bound",
        "browser web page website",
        "cost price money billing bill",
        "metrics prometheus monitor monitoring statistics",
        "log logs logging",
        "debug debugging verbose",
        "structured json schema",
        "tool tools function functions",
        "stream streaming streams streamed",
        "heartbeat keepalive",
        "docker container",
        "llamacpp llama",
        "lmstudio studio",
        "anthropic claude",
        "gemini google",
        "javascript js node typescript",
        "name called call",
        "memory remember",
        "kept keep stored store saved save retention",
        "wait timeout timeouts slow long",
        "secret secrets secure",
        "expose reach public network remote",
        "endpoint endpoints url urls path address",
        "level levels",
        "alias aliases nickname",
        "restart reload",
        "health healthy alive status",
        "live living home city",
        "old age birthday born",
    ),
    greetings=word_set(
        """hi hello hey hiya howdy greetings good morning afternoon evening day there cauce help start test"""
    ),
    thanks=word_set("""thanks thank you thx cheers very much a lot great perfect cool ok okay so many bye goodbye"""),
    who=re.compile(
        r"\b(?:who|what) (?:are|r) (?:you|u)\b(?! (?:able|doing|saying))|\bare you (?:an? )?(?:ai|human|bot|robot|real|chatgpt|gpt|claude|"
        r"gemini|llm|person|language model|model)\b|\bwhat(?:'s| is) your name\b|\bwhat can you do\b|\bintroduce yourself\b"
    ),
    remembers=re.compile(
        r"\b(?:did|have|had) i (?:just |already |ever )?(?:say|said|tell|told|mention|mentioned|ask|asked|call|called|write|wrote|give|given)\b"
        r"|\bi (?:just |already )?(?:said|told|mentioned|asked|wrote|gave)\b|\b(?:do|can) you (?:still )?remember\b|\bremember (?:what|when) i\b"
        r"|\bmy (?:last|previous|first|earlier) (?:message|question)\b"
    ),
    replied=re.compile(
        r"\b(?:did|have) you (?:just |already )?(?:say|said|tell|told|answer|answered|mention|mentioned)\b|\byou (?:just |already )?(?:said|told|mentioned|answered)\b|\byour (?:last|previous|first|earlier) (?:message|answer)\b"
    ),
    own=re.compile(r"\b(?:my|mine|am i|i am|i'm|do i (?:live|work|like|have|own|come|study))\b"),
    instruction=re.compile(
        r"\bhow (?:do|can|should|must|would|to)\b|\bcan i\b|\bwhere (?:can|should)\b|\bwhere do i (?!live|work|come|study)|\bi (?:want|need|would like)\b"
    ),
    personal=word_set(
        """name age old birthday live lives job work favorite favourite wife husband son daughter dog cat email phone
        surname born"""
    ),
    defines=re.compile(r"^\W*(?:what(?:'s|’s| is| are)\b|what .+ (?:is|are)$|(?:tell me about|explain)\b)"),
    writes=re.compile(
        r"^\W*(?:(?:please|now|can you|could you) )*(?:write|rewrite|compose|draft|translate|summari[sz]e|paraphrase|convert|calculate|compute|"
        r"solve|draw|invent|imagine|proofread|debug|refactor|recommend)\b"
    ),
    introduces=re.compile(r"\b(?:I am|I'm|I’m|call me|this is) [A-ZÁÉÍÓÚÑ]\w+"),
    named="name",
    phrases=Phrases(
        introduction=(
            "Hello! I am Cauce's offline answerer, not a language model: I quote Cauce's own guide and what was said in this "
            "conversation. Ask me, for example, how to configure a provider, how to change the port or how to resume a stream."
        ),
        welcome="You are welcome. Ask me anything about Cauce.",
        unknown=(
            "I found no answer to that in Cauce's guide or in this conversation.",
            "I am the offline answerer: I quote Cauce's own documentation, and I am not a language model.",
        ),
        connect=(
            "To get answers from a model, connect one: set `OPENAI_API_KEY`, `ANTHROPIC_API_KEY` or `GEMINI_API_KEY` and start Cauce again, start Ollama on this machine, "
            "or run `cauce config init` and add a provider to `cauce.toml`."
        ),
        check="If a model is configured already, `cauce check` tells why it does not answer.",
        failed="Models are configured here, but none of them answers now: `cauce check` tells why.",
        told="You said: “{}”",
        answered="The answer was: “{}”",
        sources="Sources:",
        conversation="This conversation, message {}",
    ),
)
